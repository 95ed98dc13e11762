-- Shared by the wrk scripts: reads payload files (benchmarks/events.py wrote them), makes message ids that are
-- unique in the run, and prints one JSON line at the end, which harness.py reads.
-- wrk -s load/X.lua URL -- FOLDER NONCE KEY_BASE64
local M = {}

function M.setup(args)
  M.folder, M.nonce, M.auth = args[1], args[2], args[3]
end

function M.lines(name)
  local out = {}
  for line in io.lines(M.folder .. "/" .. name .. ".txt") do out[#out + 1] = line end
  return out
end

-- "aaa@ID@bbb@ID@ccc" -> {"aaa", "bbb", "ccc"}
function M.pieces(text)
  local out, from = {}, 1
  while true do
    local a, b = text:find("@ID@", from, true)
    if not a then out[#out + 1] = text:sub(from); return out end
    out[#out + 1] = text:sub(from, a - 1)
    from = b + 1
  end
end

local count = 0
function M.id() -- always 36 bytes
  count = count + 1
  return string.format("%s-%012d-benchmark-load", M.nonce, count)
end

M.user_agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
M.cookie = "_ga=GA1.1.1034589123.1759999999; session=5b1e0c1a-77b2-4f0e-9f6e-2b1f6f1d9c55; theme=harbor"
M.referer = "https://shop.example/river/stone-17?utm_source=newsletter&v=100"

-- The 15 headers that a browser sends with a cross-origin POST, with wrk's Host first: 18 in all with key and length.
-- Order and values are fixed except the three that `varied` changes.
function M.post_head(path, length, user_agent, cookie, referer)
  return table.concat({
    "POST ", path, " HTTP/1.1\r\nHost: collect.shop.example\r\nConnection: keep-alive\r\nContent-Length: ", length,
    '\r\nsec-ch-ua-platform: "Windows"\r\nUser-Agent: ', user_agent,
    '\r\nsec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8", "Google Chrome";v="141"\r\nContent-Type: application/json',
    "\r\nsec-ch-ua-mobile: ?0\r\nAuthorization: Basic ", M.auth, "\r\nAccept: */*\r\nOrigin: https://shop.example",
    "\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: ", referer,
    "\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\nCookie: ", cookie, "\r\n\r\n",
  })
end

function M.report(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\nBENCH {"requests":%d,"bytes":%d,"duration_us":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,'
      .. '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency.max, e.connect, e.read, e.write, e.status, e.timeout))
end

return M
