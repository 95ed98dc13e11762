-- B: GET /pixel.gif with 21 parameters, key and message id among them.
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")
local requests, next_one = {}, 0

function init(args)
  common.setup(args)
  local headers = table.concat({
    " HTTP/1.1\r\nHost: collect.shop.example\r\nConnection: keep-alive\r\nsec-ch-ua-platform: \"Windows\"\r\nUser-Agent: ",
    common.user_agent, '\r\nsec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8", "Google Chrome";v="141"',
    "\r\nsec-ch-ua-mobile: ?0\r\nAccept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\nReferer: ", common.referer,
    "\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\nCookie: ", common.cookie, "\r\n\r\n",
  })
  for i, target in ipairs(common.lines("pixel")) do
    local p = common.pieces(target)
    requests[i] = {"GET " .. p[1], p[2] .. headers}
  end
end

function request()
  next_one = next_one % #requests + 1
  local r = requests[next_one]
  return r[1] .. common.id() .. r[2]
end

function done(summary, latency) common.report(summary, latency) end
