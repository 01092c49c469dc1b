-- Stores a request, or gives it to a worker that waits. Each operation less is felt: two calls of
-- scripts are most of what a request costs the server.
-- ARGV: life of the queue, process, " gen runs\n", limit of waiting requests, eighth of a lease in
-- seconds, id, 7 digits of the connection and 9 of the publish, envelope, and runs if there were any.
-- Returns the sequence if it waits, -sequence if a worker has it; {'life'} if the queue's life is
-- another one; {'full'}; {'stale'}: the process has a newer connection. Of those, nothing was done.
local m = call('HMGET', q, 'life', 'seq', ARGV[2])
if m[1] ~= ARGV[1] then
  return {'life'}
end
local number, last, id = ARGV[7], m[3], ARGV[6]
if last and number < last then
  if string.sub(number, 1, 7) < string.sub(last, 1, 7) then
    return {'stale'}
  end
  number = last
end
local worker = call('LPOP', q .. ':i')
if not worker and call('ZCARD', q .. ':w') >= tonumber(ARGV[4]) then
  return {'full'}
end
local t = call('TIME')
local place = (m[2] or 0) + 1
local sequence = place .. ''
local value = sequence .. ' ' .. t[1] .. ' ' .. t[2] .. ARGV[3] .. ARGV[8]
if worker then
  -- Writes come before the message: scripts are not rolled back, and a message is not taken back.
  call('HSET', q, 'seq', sequence, ARGV[2], number)
  local bucket = math.floor((t[1] + t[2] / 1000000) / ARGV[5]) % 16
  local name = q .. ':l' .. bucket
  local runs = ARGV[9] or '0'
  while worker do
    local token = id .. ':1:' .. runs .. ':' .. bucket .. ':' .. worker
    call('HSET', name, token, value)
    local message = token .. ' 0 ' .. value
    if #message > 16000 then
      message = token .. ' 0'
    end
    if call('SPUBLISH', q .. ':c:' .. worker, message) > 0 then
      return -place
    end
    call('HDEL', name, token)
    call('LREM', q .. ':i', 0, worker)
    call('ZREM', q .. ':h', worker)
    worker = call('LPOP', q .. ':i')
  end
end
if call('HSETNX', q .. ':e', id, value) == 0 then
  -- Another process has stored it.
  return tonumber(string.match(call('HGET', q .. ':e', id), '^%d+'))
end
call('HSET', q, 'seq', sequence, ARGV[2], number)
call('ZADD', q .. ':w', sequence, id)
return place
