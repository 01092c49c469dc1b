-- Gives leases back unused: no run is counted.
-- ARGV: delay in ms, tokens. Returns how many were leased.
local delay = tonumber(ARGV[1])
local at, lease = now(), call('HGET', q, 'lease')
local found = 0
for i = 2, #ARGV do
  local token = ARGV[i]
  if call('ZREM', q .. ':l', token) == 1 then
    found = found + 1
    local id, deliveries, runs = parts(token)
    if delay == 0 then
      give_back(id, deliveries, runs, at, lease)
    elseif call('HEXISTS', q .. ':e', id) == 1 then
      call('HSET', q .. ':t', id, deliveries .. ':' .. runs)
      call('ZADD', q .. ':d', at + delay, id)
    end
  end
end
return found
