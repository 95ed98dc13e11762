// Segment's tracker for Node.js, unmodified, told what to send by the test: one JSON line on stdin is one call,
// {"flush": true} the end. It answers "sent N" for each line, and at the end one JSON line with what went wrong.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const [root, host, writeKey] = process.argv.slice(2)
const { Analytics } = createRequire(root + '/package.json')('@segment/analytics-node')
const analytics = new Analytics({ writeKey, host, flushAt: 7, flushInterval: 200, maxRetries: 100 })
const errors = []
analytics.on('error', (error) => errors.push(String(error.reason ?? error)))
let statuses = {}
analytics.on('http_response', (r) => { statuses[r.status] = (statuses[r.status] ?? 0) + 1 })
let count = 0
for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line)
  if (call.flush) break
  const { method, ...message } = call
  if (message.timestamp) message.timestamp = new Date(message.timestamp)
  analytics[method](message)
  console.log('sent ' + ++count)
}
await analytics.closeAndFlush({ timeout: 60000 })
console.log(JSON.stringify({ errors, statuses }))
