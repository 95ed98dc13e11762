-- A2: as A, but User-Agent, Cookie and Referer differ from request to request (3,000 x 4,000 x 3,000 values in
-- coprime steps, a counter inside the cookie), so that a cache keyed by header bytes gains nothing it would not
-- gain from real browsers.
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")
local bodies, agents, cookies, referers = {}, {}, {}, {}
local n = 0
local concat = table.concat

function init(args)
  common.setup(args)
  for i, body in ipairs(common.lines("single")) do
    local p = common.pieces(body)
    -- the head in four parts around the three values that change
    local head = common.post_head("/v1/track", #p[1] + 36 + #p[2], "\1", "\1", "\1")
    local a, b, c, d = head:match("^(.-)\1(.-)\1(.-)\1(.*)$")
    bodies[i] = {a, b, c, d .. p[1], p[2]}
  end
  agents, cookies, referers = common.lines("user-agents"), common.lines("cookies"), common.lines("referers")
end

function request()
  n = n + 1
  local r = bodies[n % #bodies + 1]
  return concat({
    r[1], agents[n * 7 % #agents + 1], r[2], referers[n * 11 % #referers + 1], r[3],
    cookies[n * 13 % #cookies + 1], "; n=", n, r[4], common.id(), r[5],
  })
end

function done(summary, latency) common.report(summary, latency) end
