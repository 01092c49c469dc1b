-- Ends leases of a worker whose work is done, and takes requests for its free slots.
-- ARGV: worker, life of the server, number of requests wanted, tokens of the leases that end.
-- Returns nothing if none is wanted; else {epoch or '', waiting requests, wanted ones that were not
-- registered, number of the server's life, token, value, …}. What is registered comes as messages.
local worker, wanted = ARGV[1], tonumber(ARGV[3])
local ended = #ARGV - 3
if ended > 0 then
  local ids, is_first, found = {}, true, nil
  for i = 1, ended do
    local id, deliveries = string.match(ARGV[i + 3], '^([^:]+):(%d+)')
    ids[i] = id
    is_first = is_first and deliveries == '1'
  end
  if ended == 1 then
    found = call('ZREM', q .. ':l', ARGV[4])
  else
    found = call('ZREM', q .. ':l', unpack(ARGV, 4))
  end
  if found < ended or not is_first then
    -- Some had ended before, and may wait or belong to others: the work is done all the same.
    call('ZREM', q .. ':w', unpack(ids))
    call('ZREM', q .. ':r', unpack(ids))
    call('ZREM', q .. ':d', unpack(ids))
    call('HDEL', q .. ':t', unpack(ids))
  end
  call('HDEL', q .. ':e', unpack(ids))
end
if wanted <= 0 then
  return false
end
local m = call('HMGET', q, 'epoch', 'run', 'gen', 'high', 'leases', 'lease')
if not m[1] then
  -- The worker is told when the queue is made.
  return {'', 0, wanted, ''}
end
local gen = m[3]
if m[2] ~= ARGV[2] then
  gen = adopt(ARGV[2], gen)
end
local answer, size, at, high = {m[1], 0, 0, gen .. ''}, 0, nil, tonumber(m[4])
local taken = 0
local is_back = true
while wanted > 0 and size < 4194304 do
  local popped = is_back and call('ZPOPMIN', q .. ':r') or {}
  is_back = popped[1] ~= nil
  if not is_back then
    popped = call('ZPOPMIN', q .. ':w')
    if not popped[1] then
      break
    end
  end
  local id = popped[1]
  local value = call('HGET', q .. ':e', id)
  if value then
    at = at or now()
    local sequence, runs = string.match(value, '^(%d+) %d+ %d+ (%d+)\n')
    local deliveries = 0
    if is_back then
      deliveries, runs = string.match(call('HGET', q .. ':t', id), '^(%d+):(%d+)$')
    end
    local token = id .. ':' .. (deliveries + 1) .. ':' .. runs .. ':' .. worker
    call('ZADD', q .. ':l', at + m[6], token)
    high = math.max(high, tonumber(sequence))
    taken, wanted, size = taken + 1, wanted - 1, size + #value
    answer[2 * taken + 3], answer[2 * taken + 4] = token, value
  end
end
if taken > 0 then
  call('HSET', q, 'high', high, 'leases', m[5] + taken)
end
if wanted == 0 or size >= 4194304 then
  answer[2], answer[3] = call('ZCARD', q .. ':w'), wanted
else
  local registered = {}
  for i = 1, wanted do
    registered[i] = worker
  end
  call('RPUSH', q .. ':i', unpack(registered))
end
return answer
