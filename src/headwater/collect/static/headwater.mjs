// headwater.mjs: the Headwater browser tag as a module. Put headwater.js beside this file; all of the logic is there,
// and one page has one tag however often it is imported. Without a browser (server rendering) every call is a no-op.
import './headwater.js'

const here = import.meta.url
const unavailable = { ok: false, reason: 'no_browser' }
const tag = () => globalThis.headwater
const call = name => (...args) => tag() ? tag()[name](...args) : Promise.resolve(unavailable)

/** Starts the tag. `host` may be left out only where this file is imported straight from the collector. */
export function load (options) {
  const fromCollector = /^https?:.*\/headwater(\.[0-9a-f]+)?\.mjs$/.test(here)
  return tag() && tag().load({ ...(fromCollector && { host: new URL(here).origin }), ...options })
}
export const track = call('track')
export const page = call('page')
export const screen = call('screen')
export const identify = call('identify')
export const group = call('group')
export const alias = call('alias')
export const reset = call('reset')
export const ready = call('ready')
export const consent = call('consent')
export const flush = call('flush')
export const on = (what, fn) => tag() && tag().on(what, fn)
export const user = () => tag() ? tag().user() : {}
export const stats = () => tag() ? tag().stats() : {}
export default { load, track, page, screen, identify, group, alias, reset, ready, consent, flush, on, user, stats }
