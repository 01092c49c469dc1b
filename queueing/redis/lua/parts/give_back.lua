-- Gives a request whose lease has ended to a worker that waits, or stores it before all others.
local function give_back(id, value, deliveries, runs, bucket)
  if call('ZREM', q .. ':k', id) == 1 then
    -- It ended while it was leased.
    return
  end
  if hand_over(id, value, deliveries + 1, runs, bucket) then
    call('HINCRBY', q, 'again', 1)
    return
  end
  call('HSET', q .. ':e', id, value)
  call('HSET', q .. ':t', id, deliveries .. ':' .. runs)
  call('ZADD', q .. ':r', string.match(value, '^%d+'), id)
end
-- Gives back what was given back with a delay that is over.
local function give_back_due(ms, bucket)
  for _, id in ipairs(call('ZRANGEBYSCORE', q .. ':d', '-inf', ms, 'LIMIT', 0, 100)) do
    call('ZREM', q .. ':d', id)
    local value, ticket = call('HGET', q .. ':e', id), call('HGET', q .. ':t', id)
    if value and ticket then
      call('HDEL', q .. ':e', id)
      call('HDEL', q .. ':t', id)
      local deliveries, runs = string.match(ticket, '^(%d+):(%d+)$')
      give_back(id, value, deliveries, runs, bucket)
    end
  end
end
