/* The demo shop: real events through the browser tag, and each one's journey as it happens.
 * The page asks its own server (the ops process) where an event is; the collector only takes events. */
'use strict'

const POLL_MS = 150, POLL_MAX_MS = 30000, CARDS_MAX = 50
const PRODUCTS = [
  { id: 'canoe', name: 'Heron 14 canoe', kind: 'Boats', price: 1290, about: 'Two seats, cedar and canvas, at home on slow rivers.' },
  { id: 'tent', name: 'Night Heath tent', kind: 'Camping', price: 349, about: 'Sleeps two, stands in four minutes, dry in the rain.' },
  { id: 'paddle', name: 'Ash paddle', kind: 'Boats', price: 74.5, about: 'One piece of steamed ash, oiled by hand.' },
  { id: 'pack', name: 'Ferry 35 pack', kind: 'Packs', price: 129, about: 'Thirty-five litres behind a roll top that keeps the water out.' },
  { id: 'lantern', name: 'Ember lantern', kind: 'Camping', price: 42, about: 'Warm light for eleven hours.' },
  { id: 'boots', name: 'Portage boots', kind: 'Footwear', price: 189, about: 'Full grain leather, and soles that grip wet stone.' },
  { id: 'flask', name: 'Spring flask', kind: 'Camping', price: 29.9, about: 'Hot for twelve hours, cold for a day.' },
  { id: 'vest', name: 'Eddy life vest', kind: 'Boats', price: 98, about: 'Fifty newtons, and arms that move freely.' }
]
const STEPS = ['sent', 'acknowledged', 'processed', 'in the warehouse']

const $ = id => document.getElementById(id)
const money = amount => amount.toLocaleString('en', { style: 'currency', currency: 'EUR' })
const cart = new Map() // product id → quantity
const cards = new Map() // message id → card
const took = [] // click to row, ms
let events = 0, user = null, config = null

/* A command with its data folder, so that it works in any folder; both are quoted for a shell already. */
const command = name => config.program + ' ' + name + ' --data ' + config.data

/* make('p', {class: 'x', onclick: fn}, child, …): text is never read as HTML. */
function make (name, attributes = {}, ...children) {
  const node = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value)
    else if (value !== undefined) node.setAttribute(key, value)
  }
  node.append(...children)
  return node
}
function picture (product) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use')
  use.setAttribute('href', '#pic-' + product.id)
  svg.setAttribute('viewBox', '0 0 160 110')
  svg.setAttribute('aria-hidden', 'true')
  svg.append(use)
  return svg
}
const properties = product => ({ product_id: product.id, name: product.name, category: product.kind, price: product.price, currency: 'EUR' })

/* ---- the shop */

/* An "add" button needs no code for its event: the tag reads the data attributes (option `clicks`). */
function addButton (product, text) {
  const button = make('button', { type: 'button', class: 'solid', 'aria-label': 'Add ' + product.name + ' to the cart', 'data-hw-event': 'Product Added', 'data-hw-prop-quantity': 1 }, text)
  for (const [name, value] of Object.entries(properties(product))) button.setAttribute('data-hw-prop-' + name.replace(/_/g, '-'), value)
  button.addEventListener('click', () => {
    cart.set(product.id, (cart.get(product.id) || 0) + 1)
    showCart()
  })
  return button
}
function showProducts (products) {
  $('products').replaceChildren(...products.map(product => make('li', { class: 'product' },
    make('button', { type: 'button', class: 'picture', 'aria-label': 'View ' + product.name, onclick: () => view(product) }, picture(product)),
    make('div', { class: 'text' }, make('h3', {}, product.name), make('p', { class: 'kind' }, product.kind),
      make('div', { class: 'buy' }, make('span', { class: 'price' }, money(product.price)), addButton(product, 'Add'))))))
  if (!products.length) $('products').append(make('li', { class: 'none' }, 'Nothing found. Try “tent” or “boat”.'))
}
function view (product) {
  headwater.track('Product Viewed', properties(product))
  $('product-view').replaceChildren(make('div', { class: 'view' }, picture(product), make('div', { class: 'text' },
    make('h2', { id: 'product-name' }, product.name), make('p', {}, product.about),
    make('div', { class: 'actions' }, make('span', { class: 'price' }, money(product.price)),
      make('button', { type: 'button', class: 'quiet', onclick: () => $('product-dialog').close() }, 'Back'), addButton(product, 'Add to cart')))))
  $('product-dialog').showModal()
}
const total = () => PRODUCTS.reduce((sum, product) => sum + product.price * (cart.get(product.id) || 0), 0)
function showCart () {
  const inCart = PRODUCTS.filter(product => cart.has(product.id))
  $('cart-count').textContent = [...cart.values()].reduce((a, b) => a + b, 0)
  $('cart').setAttribute('aria-label', 'Cart, ' + $('cart-count').textContent + ' items')
  $('lines').replaceChildren(...inCart.map(product => make('li', {}, picture(product),
    make('span', {}, product.name + ' × ' + cart.get(product.id)),
    make('button', { type: 'button', class: 'quiet', 'aria-label': 'Remove ' + product.name, onclick: () => remove(product) }, 'Remove'))))
  if (!inCart.length) $('lines').append(make('li', {}, 'Still empty.'))
  $('sum').textContent = money(total())
  $('checkout').disabled = !inCart.length
}
function remove (product) {
  headwater.track('Product Removed', { ...properties(product), quantity: cart.get(product.id) })
  cart.delete(product.id)
  showCart()
}
function checkOut () {
  const order = { order_id: 'R-' + Date.now().toString(36).toUpperCase(), total: total(), currency: 'EUR', products: [...cart].map(([id, quantity]) => ({ product_id: id, quantity })) }
  headwater.track('Checkout Started', { order_id: order.order_id, total: order.total, currency: order.currency })
  headwater.track('Order Completed', order)
  cart.clear()
  showCart()
  $('cart-dialog').close()
  $('found').textContent = 'Thank you! Order ' + order.order_id + ' is on its way, and so are its events.'
}
function search (event) {
  event.preventDefault()
  const query = $('query').value.trim(), words = query.toLowerCase().split(/\s+/)
  const found = PRODUCTS.filter(p => words.every(word => (p.name + ' ' + p.kind + ' ' + p.about).toLowerCase().includes(word.replace(/s$/, ''))))
  showProducts(found)
  $('found').textContent = query ? found.length + ' found for “' + query + '”' : 'Everything you do here is a real event. Watch it travel.'
  if (query) headwater.track('Products Searched', { query, results: found.length })
}
function showUser () {
  user = headwater.user()
  $('account').textContent = user.id ? 'Log out ' + ((user.traits && user.traits.name) || user.id).split(' ')[0] : 'Log in'
}
async function account () {
  if (!user.id) return $('login-dialog').showModal()
  headwater.track('Signed Out')
  await headwater.reset()
  showUser()
}
function logIn (event) {
  event.preventDefault()
  const email = $('email').value.trim()
  headwater.identify(email, { name: $('name').value.trim(), email })
  headwater.track('Signed In')
  $('login-dialog').close()
  showUser()
}

/* ---- the journey */

function median (values) {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}
const duration = ms => ms < 1000 ? Math.round(ms) + ' ms' : (ms / 1000).toFixed(2) + ' s'
function showTotals () {
  $('total-events').textContent = events
  $('total-landed').textContent = took.length
  $('total-median').textContent = took.length ? duration(median(took)) : '–'
}
const detail = event => [event.properties && (event.properties.name || event.properties.query || event.properties.order_id), event.traits && event.traits.email].find(Boolean) || ''

/* One event on its way. Steps only go forward; a later answer proves the steps before it. */
class Card {
  constructor (id, event) {
    this.id = id
    this.name = event.event || (event.name && event.type + ': ' + event.name) || event.type
    this.start = performance.now()
    this.reached = -1
    this.steps = STEPS.map((step, n) => make('li', { class: n === 3 ? 'last' : undefined }, step, make('b')))
    this.receipt = make('p', { class: 'receipt', hidden: '' })
    this.took = make('span', { class: 'took' })
    this.node = make('li', { class: 'card' },
      make('header', {}, make('h3', {}, this.name), make('span', { class: 'what' }, event.type === 'page' ? event.context.page.path : detail(event)), this.took),
      make('ol', { class: 'steps', 'aria-label': 'Steps of ' + this.name }, ...this.steps), this.receipt)
    this.reach(0, 0)
  }

  reach (step, ms) {
    if (step <= this.reached) return
    for (let n = this.reached + 1; n <= step; n++) {
      this.steps[n].classList.add('done')
      if (n > 0) this.steps[n].lastChild.textContent = '+' + duration(ms)
    }
    this.reached = step
    this.steps.forEach((node, n) => node.classList.toggle('now', n === step + 1))
  }

  acknowledged (result) {
    this.reach(1, result.ms === undefined ? performance.now() - this.start : result.ms)
    this.receipt.hidden = false
    this.receipt.replaceChildren('on ' + (result.ack || 'disk') + ' · receipt ', make('code', {}, result.receipt || '–'))
    this.receipt.title = result.receipt || ''
    $('where').textContent = command('where') + ' ' + (result.receipt || 'RECEIPT')
    this.follow(result.receipt)
  }

  async follow (receipt) {
    const address = '/demo/journey?receipt=' + encodeURIComponent(receipt) + '&message_id=' + encodeURIComponent(this.id)
    let problem = ''
    while (performance.now() - this.start < POLL_MAX_MS && this.node.isConnected) {
      try {
        const reply = await fetch(address, { cache: 'no-store' })
        if (!reply.ok) throw new Error('the server said ' + reply.status)
        const where = await reply.json(), ms = performance.now() - this.start
        problem = ''
        if (where.processed) this.reach(2, ms)
        if (where.row && where.destinations && where.destinations[config.destination]) return this.landed(where.row, ms)
      } catch (error) {
        problem = ' (' + error.message + ')'
      }
      await new Promise(resolve => setTimeout(resolve, POLL_MS))
    }
    this.failed('It is safe with the collector, but ' + POLL_MAX_MS / 1000 + ' s later not seen in the ' + config.destination + problem + '. Ask: ' + command('where') + ' ' + receipt)
  }

  landed (row, ms) {
    this.reach(3, ms)
    this.took.textContent = duration(ms)
    took.push(ms)
    const columns = Object.entries(row).filter(([, value]) => value !== null && value !== undefined)
    const details = make('details', {}, make('summary', {}, 'The row: ' + columns.length + ' columns'),
      make('div', { class: 'rows', tabindex: '0', role: 'group', 'aria-label': 'The row of ' + this.name }, make('table', { class: 'row' }, make('tbody', {}, ...columns.map(([name, value]) =>
        make('tr', {}, make('th', { scope: 'row' }, name), make('td', { class: typeof value === 'number' ? 'number' : undefined }, typeof value === 'object' ? JSON.stringify(value) : String(value))))))))
    this.node.append(details)
    if (Card.open && !Card.open.touched) Card.open.details.open = false
    details.open = true // the newest row is shown; what a person opened stays
    details.querySelector('summary').addEventListener('click', () => { this.touched = true })
    this.details = details
    Card.open = this
    $('said').textContent = this.name + ' is in the warehouse after ' + duration(ms)
    showTotals()
  }

  failed (text) {
    this.node.classList.add('failed')
    this.steps.forEach(node => node.classList.remove('now'))
    this.node.append(make('p', { class: 'error' }, text))
    $('said').textContent = this.name + ': ' + text
  }
}
function queued ({ messageId, event }) {
  const card = new Card(messageId, event)
  cards.set(messageId, card)
  $('empty').hidden = true
  $('cards').prepend(card.node)
  events++
  if (cards.size > CARDS_MAX) {
    const [oldest, old] = cards.entries().next().value
    old.node.remove()
    cards.delete(oldest)
  }
  showTotals()
}
const withCard = act => result => {
  const card = cards.get(result.messageId)
  if (card) act(card, result)
}

/* ---- start */

function state (text, good) {
  $('state').textContent = text
  $('pulse').className = 'pulse ' + (good ? 'on' : 'off')
}
function notice (text, action, run) {
  $('notice').replaceChildren(make('span', {}, text))
  if (action) $('notice').append(make('button', { type: 'button', class: 'solid', onclick: run }, action))
  $('notice').hidden = !text
}
function loadTag (address) {
  return new Promise((resolve, reject) => {
    document.head.append(make('script', { src: address, onload: resolve, onerror: () => reject(new Error(address + ' cannot be loaded')) }))
  })
}
function watchPrivacy () {
  if (headwater.stats().consent !== 'denied') return
  state('The tag is silent', false)
  notice('Your browser asks not to be tracked (Global Privacy Control or Do Not Track), so the tag stores and sends nothing. The demo can only show something if you allow it here.',
    'Allow on this page', async () => {
      await headwater.consent(true)
      notice('')
      state('Live: each click is an event', true)
    })
}
async function start () {
  showProducts(PRODUCTS)
  const reply = await fetch('/demo/config.json', { cache: 'no-store' })
  if (!reply.ok) throw new Error('the demo configuration cannot be read (' + reply.status + ')')
  config = await reply.json()
  if (config.destination !== 'warehouse') $('destination').textContent = config.destination
  document.querySelectorAll('.command').forEach(node => { node.textContent = node.textContent.replace(/^headwater (\w+)/, (_, name) => command(name)) })
  await loadTag(config.tag)
  headwater.on('queued', queued)
  headwater.on('acknowledged', withCard((card, result) => card.acknowledged(result)))
  headwater.on('refused', withCard((card, result) => card.failed('Refused: ' + result.reason + (result.field ? ' (' + result.field + ')' : ''))))
  headwater.on('dropped', withCard((card, result) => card.failed('Dropped by the tag: ' + result.reason)))
  headwater.load({ key: config.key, host: config.collector, clicks: true, autoPage: true })
  state('Live: each click is an event', true)
  watchPrivacy()
  setInterval(() => {
    const { waiting, retries, consent } = headwater.stats()
    if (consent === 'granted') state(waiting && retries ? waiting + ' waiting: the collector does not answer, the tag tries again' : 'Live: each click is an event', !(waiting && retries))
  }, 1000)
  showUser()
  showCart()
  $('search').addEventListener('submit', search)
  $('account').addEventListener('click', account)
  $('login').addEventListener('submit', logIn)
  $('cart').addEventListener('click', () => $('cart-dialog').showModal())
  $('checkout').addEventListener('click', checkOut)
  document.querySelectorAll('[data-close]').forEach(button => button.addEventListener('click', () => button.closest('dialog').close()))
  document.querySelectorAll('[inert]').forEach(node => { node.inert = false }) // before this a click would be lost
  document.querySelectorAll('dialog').forEach(dialog => dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close() }))
}
start().catch(error => {
  state('Not connected', false)
  notice('The demo cannot start: ' + error.message + '.', 'Try again', () => location.reload())
})
