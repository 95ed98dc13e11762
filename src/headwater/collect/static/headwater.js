/* Headwater browser tag, Apache-2.0; docs/guides/browser-tag.md */
(function () {
  'use strict'
  const w = globalThis, d = w.document, nav = w.navigator, early = w.headwater, VERSION = '0.1.0'
  if (!d || early && early.version) return
  const SCRIPT = d.currentScript
  const BATCH_EVENTS_MAX = 50, BATCH_BYTES_MAX = 60000 // keepalive: 64 KiB
  const DEBOUNCE_MS = 100, TAKEOVER_MS = 2000, SETTLE_MS = 250, REPLY_MS = 20000, LOCK_MS = 45000
  const BACKOFF_MS = 1000, BACKOFF_MAX_MS = 60000, RETRY_AFTER_MAX_MS = 36e5
  const GRANTED = 1, WAITING = -1, DENIED = 0
  const ANON = 'hw_anon', USER = 'hw_user', GROUP = 'hw_group', CONSENT = 'hw_consent'

  let options, QUEUE, RESULT, PAUSE, LEASE
  let running, again, timer, due, lastTime = 0, lastSend = 0, warned, referrer = d.referrer
  const calls = [], pending = new Map(), flying = new Set(), beaconed = new Set(), hooks = {}
  const counts = { queued: 0, acknowledged: 0, refused: 0, dropped: 0, retries: 0, beacons: 0 }
  const now = () => Date.now()
  const uuid = () => '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, c =>
    (c ^ w.crypto.getRandomValues(new Uint8Array(1))[0] & 15 >> c / 4).toString(16))
  const json = (text, otherwise) => { try { return JSON.parse(text) || otherwise } catch (e) { return otherwise } }
  const bytes = text => new Blob([text]).size
  const warn = text => { if (!warned) console.warn('headwater: ' + text); warned = 1 }
  const limit = ms => { const stop = new AbortController(); stop.timer = setTimeout(() => stop.abort(), ms); return stop }
  const on = (target, type, fn) => target.addEventListener(type, fn, true)

  // consent is asked anew at each call: tabs agree
  function mode() {
    const said = memory.get(CONSENT) || disk(s => s.getItem(CONSENT))
    if (said) return +said
    if (options.privacy !== 'ignore' && (nav.globalPrivacyControl || nav.doNotTrack === '1')) return DENIED
    return options.consent === 'required' ? WAITING : GRANTED
  }

  // localStorage; memory where it is absent, full, or not allowed yet
  const memory = new Map()
  const disk = act => { try { return act(w.localStorage) } catch (e) { } }
  const kept = act => mode() === GRANTED ? disk(act) : undefined
  const read = name => memory.has(name) ? memory.get(name) : kept(s => s.getItem(name))
  const write = (name, text) => kept(s => { s.setItem(name, text); return 1 }) ? memory.delete(name) : memory.set(name, text)
  const erase = name => { memory.delete(name); disk(s => s.removeItem(name)) }
  const names = all => [...new Set([...memory.keys(), ...((all ? disk : kept)(Object.keys) || [])])].filter(n => n.startsWith(QUEUE)).sort()
  function cookie(value, age) {
    try {
      if (!age) return decodeURIComponent((d.cookie.match('(?:^|; )' + ANON + '=([^;]+)') || [])[1] || '')
      d.cookie = ANON + '=' + encodeURIComponent(value) + ';path=/;samesite=lax;max-age=' + age + (location.protocol === 'https:' ? ';secure' : '') +
        (options.cookieDomain ? ';domain=' + options.cookieDomain : '')
    } catch (e) { }
  }

  function anonymousId() {
    const granted = mode() === GRANTED, stored = read(ANON), given = granted && cookie(), id = given || stored || uuid()
    if (stored !== id) write(ANON, id)
    if (granted && given !== id) cookie(id, 34e6) // 13 months
    return id
  }
  const user = () => json(read(USER), {})
  function forget() {
    [ANON, USER, GROUP].forEach(erase)
    cookie('', -1)
  }

  const place = () => ({ url: location.href, path: location.pathname, referrer, title: d.title, search: location.search })
  function context() {
    const campaign = {}, data = nav.userAgentData, { width, height } = w.screen
    new URLSearchParams(location.search).forEach((v, k) => { if (k.startsWith('utm_')) campaign[k === 'utm_campaign' ? 'name' : k.slice(4)] = v })
    return {
      page: place(), campaign, userAgent: nav.userAgent, userAgentData: data && data.toJSON(), locale: nav.language,
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone, groupId: read(GROUP) || undefined,
      screen: { width, height, density: w.devicePixelRatio }, viewport: { width: w.innerWidth, height: w.innerHeight },
      library: { name: 'headwater.js', version: VERSION }
    }
  }
  function send(type, fields, extra, at = now()) {
    extra = extra || {}
    const messageId = '' + (extra.messageId || uuid())
    return new Promise(resolve => {
      pending.set(messageId, { resolve, at })
      const lost = reason => settle(messageId, 'dropped', { messageId, reason })
      if (mode() === DENIED) return lost('privacy')
      let text
      try {
        text = JSON.stringify({
          type, messageId, anonymousId: anonymousId(), userId: user().id, timestamp: new Date(at), ...fields, ...extra,
          context: { ...context(), ...extra.context }
        })
      } catch (e) {
        return lost('unserializable')
      }
      if (text.length > options.eventCharsMax) return lost('too_large')
      lastTime = Math.max(now(), lastTime + 1) // names sort
      counts.queued++
      write(QUEUE + lastTime.toString(36).padStart(9, '0') + messageId, text)
      emit('queued', { messageId, event: JSON.parse(text) })
      trim()
      soon()
    })
  }
  const idOf = name => name.slice(QUEUE.length + 9)
  function trim() {
    let events = 0, chars = 0
    for (const name of names().reverse()) {
      chars += (read(name) || '').length
      if (++events > options.queueEventsMax || chars > options.queueCharsMax) finish(name, 'dropped', { reason: 'queue_full' })
    }
  }

  // results: to promise and hooks here, by a storage event to the tab of the event
  const emit = (what, data) => (hooks[what] || []).forEach(fn => Promise.resolve(data).then(fn))
  function settle(id, what, result) {
    const p = pending.get(id)
    result.ok = what === 'acknowledged'
    if (p) {
      result.ms = now() - p.at
      p.resolve(result)
    }
    pending.delete(id)
    beaconed.delete(id)
    counts[what]++
    if (!result.ok && result.reason !== 'privacy') warn(what + ' ' + id + ': ' + result.reason)
    emit(what, result)
    return p
  }
  function finish(name, what, more) {
    const messageId = idOf(name), result = { messageId, ...more }
    erase(name)
    if (!settle(messageId, what, result)) disk(s => { s.setItem(RESULT, JSON.stringify([messageId, what, result])); s.removeItem(RESULT) })
  }

  // own events at once; those of other tabs when their tab must be gone
  function pick(leaving) {
    const batch = []
    let room = BATCH_BYTES_MAX - 200 - bytes(options.key)
    for (const name of names()) {
      const id = idOf(name), mine = pending.has(id), text = read(name)
      if (leaving ? !mine || flying.has(id) || beaconed.has(id) : !mine && Math.abs(now() - parseInt(name.substr(QUEUE.length, 9), 36)) < TAKEOVER_MS) {
        batch.young = 1
        continue
      }
      if (!text) continue
      room -= bytes(text) + 1
      if (batch.length && room < 0 || batch.length === BATCH_EVENTS_MAX) break
      batch.push({ name, id, text })
    }
    return batch
  }
  const url = () => options.host + '/v1/batch'
  const body = batch => JSON.stringify({ batch: batch.map(e => json(e.text)), sentAt: new Date(), writeKey: options.key })
  const pause = () => json(read(PAUSE), [0, 0])

  async function attempt() { // true: go on
    const [notBefore, failures] = pause(), left = notBefore - now()
    if (left > 0 && left < RETRY_AFTER_MAX_MS * 2) return later(left)
    let batch = pick()
    if (batch.some(e => !pending.has(e.id))) { // perhaps just removed
      await new Promise(resolve => setTimeout(resolve, SETTLE_MS))
      batch = pick()
    }
    if (!batch.length) return batch.young && later(TAKEOVER_MS)
    const stop = limit(REPLY_MS), text = body(batch)
    let status = 0, reply, after
    lastSend = now()
    batch.forEach(e => flying.add(e.id))
    try { // a text body needs no preflight
      const r = await fetch(url(), { method: 'POST', body: text, keepalive: bytes(text) <= BATCH_BYTES_MAX, credentials: 'omit', signal: stop.signal })
      after = r.headers.get('Retry-After')
      reply = json(await r.text())
      status = r.status
    } catch (e) { }
    clearTimeout(stop.timer)
    flying.clear()
    const ok = status >= 200 && status < 300 && reply // 2xx without JSON: not our collector
    if (!ok && (status < 400 || status === 429 || status >= 500)) {
      const wait = Math.min(after > 0 ? after * 1000 : Date.parse(after) - now() || 0, RETRY_AFTER_MAX_MS)
      const back = Math.min(BACKOFF_MS * 2 ** failures, BACKOFF_MAX_MS) / 2
      const ms = Math.max(wait, back) + Math.random() * back
      counts.retries++
      write(PAUSE, JSON.stringify([now() + ms, failures + 1, status]))
      return later(ms)
    }
    erase(PAUSE)
    const bad = batch.map((e, i) => (reply && reply.refused || []).find(r => r.index === i))
    batch.forEach(({ name }, i) => bad[i] ? finish(name, 'refused', { reason: bad[i].reason, field: bad[i].field })
      : ok ? finish(name, 'acknowledged', { receipt: reply.receipt, ack: reply.ack })
        : bad.some(Boolean) || finish(name, 'dropped', { reason: 'status ' + status })) // else the good ones go again
    return true
  }
  async function lease() { // without Web Locks a rare tie costs a repeat
    const left = read(LEASE) - now()
    if (left > 0 && left <= LOCK_MS) return later(200)
    write(LEASE, now() + LOCK_MS)
    try { return await attempt() } finally { erase(LEASE) }
  }
  function alone() { // one tab sends at a time
    if (!nav.locks) return lease()
    let got
    const stop = limit(LOCK_MS)
    const job = () => {
      clearTimeout(stop.timer)
      return got = got || attempt()
    }
    return nav.locks.request(LEASE, { signal: stop.signal }, job)
      .catch(() => got || nav.locks.request(LEASE, { steal: true }, job)).catch(job)
  }
  async function run() {
    again = await 0
    while (mode() === GRANTED && await alone());
  }
  const done = () => { running = 0; if (again) flush() }
  const flush = () => running || (running = run().then(done, done))
  function later(ms) {
    if (timer && due <= now() + ms) return
    clearTimeout(timer)
    due = now() + ms
    timer = setTimeout(() => { timer = 0; flush() }, ms)
  }
  function soon() {
    again = 1
    if (now() - lastSend > DEBOUNCE_MS) flush()
    else later(DEBOUNCE_MS)
  }
  function leave() { // a beacon has no answer: its events stay queued
    if (flying.size) erase(LEASE)
    const batch = mode() === GRANTED && pause()[0] < now() ? pick(true) : []
    if (batch.length && nav.sendBeacon(url(), body(batch))) {
      counts.beacons++
      batch.forEach(e => beaconed.add(e.id))
    }
  }

  function onClick(e) {
    const el = e.target.closest('[data-hw-event]'), properties = {}
    if (!el) return
    for (const { name, value } of el.attributes) {
      if (name.startsWith('data-hw-prop-')) properties[name.slice(13).replace(/-/g, '_')] = /^(true|false|-?(0|[1-9]\d{0,14})(\.\d+)?)$/.test(value) ? JSON.parse(value) : value
    }
    api.track(el.getAttribute('data-hw-event'), properties)
  }
  function watchPath() {
    const path = () => location.pathname + (/^#[/!]/.test(location.hash) ? location.hash : '')
    let at = path(), href = location.href
    const moved = () => setTimeout(() => { // after the router set the title
      const from = href
      href = location.href
      if (path() === at) return
      at = path()
      referrer = from
      api.page()
    })
    for (const name of ['pushState', 'replaceState']) {
      const original = history[name]
      history[name] = function () {
        original.apply(this, arguments)
        moved()
      }
    }
    on(w, 'popstate', moved)
  }

  const named = type => function (...args) { // ([category], [name], [properties], [options])
    const texts = []
    while (typeof args[0] === 'string') texts.push(args.shift())
    const name = texts.pop(), category = texts.pop()
    return send(type, { name, category, properties: { ...(type === 'page' && place()), name, category, ...args[0] } }, args[1], this.at)
  }
  const actions = {
    track(event, properties, extra) { return send('track', { event, properties: properties || {} }, extra, this.at) },
    page: named('page'),
    screen: named('screen'),
    identify(id, traits, extra) {
      if (id && typeof id === 'object') [id, traits, extra] = [0, id, traits]
      const old = user()
      id = id ? '' + id : old.id
      traits = { ...((!old.id || old.id === id) && old.traits), ...traits }
      if (mode() !== DENIED) write(USER, JSON.stringify({ id, traits }))
      return send('identify', { traits }, extra, this.at)
    },
    group(id, traits, extra) {
      if (mode() !== DENIED) write(GROUP, id)
      return send('group', { groupId: id, traits: traits || {} }, extra, this.at)
    },
    alias(to, from, extra) { return send('alias', { userId: to, previousId: from || user().id || anonymousId() }, extra, this.at) },
    async reset() {
      if (user().id && mode() !== DENIED) send('reset', {}, 0, this.at)
      forget()
      if (mode() !== DENIED) anonymousId()
    },
    async ready(fn) { if (fn) fn(api) },
    async consent(yes) {
      const before = mode(), said = yes ? '1' : '0'
      if (!disk(s => { s.setItem(CONSENT, said); return 1 })) memory.set(CONSENT, said)
      if (!yes) return withdraw()
      memory.forEach((text, name) => write(name, text))
      if (before === DENIED && options.autoPage) api.page()
      return flush()
    },
    async flush() {
      await running
      return flush()
    }
  }
  function withdraw() {
    names(true).forEach(n => finish(n, 'dropped', { reason: 'privacy' }))
    erase(PAUSE)
    forget()
  }
  function start() {
    options = { queueEventsMax: 1000, queueCharsMax: 1e6, eventCharsMax: 2e5, ...api.options };
    [QUEUE, RESULT, PAUSE, LEASE] = ['q', 'r', 'p', 'l'].map(n => 'hw_' + n + ':' + options.key + ':')
    if (mode() === DENIED) withdraw()
    on(d, 'visibilitychange', () => d.hidden ? leave() : flush())
    on(w, 'pagehide', leave)
    on(w, 'pageshow', e => { if (e.persisted && options.autoPage) api.page() })
    on(w, 'online', () => { if (!pause()[2]) erase(PAUSE); flush() })
    on(w, 'storage', ({ key, newValue }) => {
      if (key === RESULT) {
        const r = json(newValue, [])
        if (pending.has(r[0])) settle(...r)
      } else if (key === CONSENT && mode() === DENIED) withdraw() // what the tab that said so could not see yet
      else if (newValue && key.startsWith(QUEUE)) later(TAKEOVER_MS * 2) // in case that tab goes away
    })
    if (options.clicks) on(d, 'click', onClick)
    if (options.spa) watchPath()
    calls.splice(0).forEach(c => call(...c))
    if (options.autoPage) api.page()
    flush()
  }
  const api = {
    version: VERSION,
    load(given) {
      given = { host: SCRIPT && SCRIPT.src && new URL(SCRIPT.src).origin, ...given }
      if (api.options) warn('loaded already')
      else if (!given.key || !given.host) console.error('headwater: load() needs key and host')
      else {
        api.options = given
        if (d.prerendering) on(d, 'prerenderingchange', start)
        else start()
      }
      return api
    },
    on(what, fn) { (hooks[what] = hooks[what] || []).push(fn) },
    user: () => options && mode() !== DENIED ? { anonymousId: anonymousId(), ...user() } : {},
    stats: () => ({ waiting: options ? names().length : calls.length, consent: options && ['denied', 'granted'][mode()] || 'waiting', ...counts })
  }
  function call(name, args, resolve, at) {
    if (options || !actions[name]) resolve((actions[name] || api[name]).apply({ at }, args))
    else if (calls.push([name, args, resolve, at]) > 1000) calls.shift()[2]({ ok: false, reason: 'queue_full' })
  }
  for (const name in actions) api[name] = (...args) => new Promise(resolve => call(name, args, resolve, now()))
  w.headwater = api
  if (Array.isArray(early)) early.forEach(c => call(...c))
  if (SCRIPT && SCRIPT.dataset.key && !api.options) {
    const given = { ...SCRIPT.dataset }
    for (const name of ['autoPage', 'spa', 'clicks']) given[name] = name in given && given[name] !== 'false'
    api.load(given)
  }
})()
