-- with leases, hand_over, give_back, renamed, life
-- Gives leases back unused: no run is counted.
-- ARGV: delay in ms, tokens. Returns how many were leased.
local delay = tonumber(ARGV[1])
local _, width = present_life()
local t = call('TIME')
local present = bucket_of(t, width)
local found = 0
for i = 2, #ARGV do
  local token = ARGV[i]
  local id, deliveries, runs, bucket = parts_of(token)
  local value = call('HGET', q .. ':l' .. bucket, token)
  if value then
    call('HDEL', q .. ':l' .. bucket, token)
  else
    value = take_renamed(token)
  end
  if value then
    found = found + 1
    if delay == 0 then
      give_back(id, value, deliveries, runs, present)
    elseif call('ZREM', q .. ':k', id) == 0 then
      call('HSET', q .. ':e', id, value)
      call('HSET', q .. ':t', id, deliveries .. ':' .. runs)
      call('ZADD', q .. ':d', t[1] * 1000 + math.floor(t[2] / 1000) + delay, id)
    end
  end
end
return found
