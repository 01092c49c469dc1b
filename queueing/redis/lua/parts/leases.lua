-- Leases are in sixteen hashes, each for an eighth of their time: what is in one that is nine or more
-- eighths old has ended.
local function bucket_at(ms, lease)
  return math.floor(ms * 8 / lease) % 16
end
local function now()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function parts_of(token)
  return string.match(token, '^([^:]+):(%d+):(%d+):(%d+):(.*)$')
end
-- Stores a lease and returns its token.
local function lease_to(worker, id, value, deliveries, runs, ms, lease)
  local bucket = bucket_at(ms, lease)
  local token = id .. ':' .. deliveries .. ':' .. runs .. ':' .. bucket .. ':' .. worker
  call('HSET', q .. ':l' .. bucket, token, value)
  return token, q .. ':l' .. bucket
end
