-- A: POST /v1/track, 256 bodies of different length, a new message id each time, headers always the same.
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")
local requests, next_one = {}, 0

function init(args)
  common.setup(args)
  for i, body in ipairs(common.lines("single")) do
    local p = common.pieces(body)
    local head = common.post_head("/v1/track", #p[1] + 36 + #p[2], common.user_agent, common.cookie, common.referer)
    requests[i] = {head .. p[1], p[2]}
  end
end

function request()
  next_one = next_one % #requests + 1
  local r = requests[next_one]
  return r[1] .. common.id() .. r[2]
end

function done(summary, latency) common.report(summary, latency) end
