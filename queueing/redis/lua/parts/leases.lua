-- Leases are in sixteen hashes, each for an eighth of their time: what is in one that is nine or more
-- eighths old has ended. width is that eighth, in seconds.
local function bucket_of(t, width)
  return math.floor((t[1] + t[2] / 1000000) / width) % 16
end
local function parts_of(token)
  return string.match(token, '^([^:]+):(%d+):(%d+):(%d+):(.*)$')
end
-- Stores a lease and sends it to the worker. Returns whether that can have got it.
local function lease_to(worker, id, value, deliveries, runs, bucket, waiting)
  local token = id .. ':' .. deliveries .. ':' .. runs .. ':' .. bucket .. ':' .. worker
  call('HSET', q .. ':l' .. bucket, token, value)
  local message = token .. ' ' .. waiting .. ' ' .. value
  if #message > 16000 then
    -- The worker fetches it: nobody bounds what waits for a subscriber that does not read.
    message = token .. ' ' .. waiting
  end
  if call('SPUBLISH', q .. ':c:' .. worker, message) > 0 then
    return true
  end
  call('HDEL', q .. ':l' .. bucket, token)
  return false
end
