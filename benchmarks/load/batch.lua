-- C: POST /v1/batch, 16 bodies of 100 events each, a new message id for every event.
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")
local requests, next_one = {}, 0
local concat = table.concat

function init(args)
  common.setup(args)
  for i, body in ipairs(common.lines("batch")) do
    local p, parts, length = common.pieces(body), {}, 0
    for k, piece in ipairs(p) do
      length = length + #piece + (k > 1 and 36 or 0)
      if k > 1 then parts[#parts + 1] = "" end -- the even places are for the ids
      parts[#parts + 1] = piece
    end
    parts[1] = common.post_head("/v1/batch", length, common.user_agent, common.cookie, common.referer) .. parts[1]
    requests[i] = parts
  end
end

function request()
  next_one = next_one % #requests + 1
  local parts = requests[next_one]
  for k = 2, #parts - 1, 2 do parts[k] = common.id() end
  return concat(parts)
end

function done(summary, latency) common.report(summary, latency) end
