-- with leases, hand_over, life
-- Stores a request, or gives it to a worker that waits.
-- ARGV: process, limit of waiting requests, lease in ms, life of the server, life of the queue or '',
-- its gen, id, 1e9 * connection + number, 'again' or runs or '', envelope.
-- Returns the sequence if it waits, -sequence if a worker has it; {'life', life, either of these} if
-- the queue's life is another one; {'full'}; {'gone'}: a repeated request was stored and has left
-- the queue; {'leased', sequence}: it was stored and is leased; {'stale'}: the process has a newer
-- connection.
local process, id, mode, gen = ARGV[1], ARGV[7], ARGV[9], ARGV[6]
local m = call('HMGET', q, 'life', 'lease', 'seq', 'lined', process)
local life, lease, last = m[1], m[2], tonumber(m[5]) or 0
local number = tonumber(ARGV[8])
if number < last and math.floor(last / 1e9) > math.floor(number / 1e9) then
  return {'stale'}
end
if mode == 'again' and last % 1e9 >= number % 1e9 and call('HEXISTS', q .. ':e', id) == 0 then
  for bucket = 0, 15 do
    for _, token in ipairs(call('HKEYS', q .. ':l' .. bucket)) do
      if string.sub(token, 1, #id) == id then
        local held = call('HGET', q .. ':l' .. bucket, token)
        return {'leased', tonumber(string.match(held, '^%d+'))}
      end
    end
  end
  return {'gone'}
end
local worker = call('LPOP', q .. ':i')
if not worker and call('ZCARD', q .. ':w') >= tonumber(ARGV[2]) and
  call('HEXISTS', q .. ':e', id) == 0 then
  return {'full'}
end
local is_new = not life
if life ~= ARGV[5] then
  if is_new then
    life, lease = process .. '.' .. ARGV[8] .. ' ' .. ARGV[4] .. ' 1', ARGV[3]
    call('HSET', q, 'life', life, 'lease', lease)
  else
    life = adopt(life, ARGV[4])
  end
  gen = select(3, parts_of_life(life))
end
local t = call('TIME')
local sequence = (m[3] or 0) + 1
local runs = tonumber(mode) and mode or '0'
local value =
  sequence .. ' ' .. t[1] .. ' ' .. t[2] .. ' ' .. gen .. ' ' .. runs .. '\n' .. ARGV[10]
if number < last then
  number = last
end
local place = sequence
if worker then
  call('HSET', q, 'seq', sequence, process, number)
  local ms = t[1] * 1000 + t[2] / 1000
  if hand_over(id, value, 1, runs, ms, lease, worker) then
    place = -sequence
  end
end
if place > 0 then
  if call('HSETNX', q .. ':e', id, value) == 0 then
    place = tonumber(string.match(call('HGET', q .. ':e', id), '^%d+'))
    call('HSET', q, process, number)
  else
    call('HSET', q, 'seq', sequence, process, number, 'lined', (m[4] or 0) + 1)
    call('ZADD', q .. ':w', sequence, id)
  end
end
if is_new then
  call('SPUBLISH', q .. ':x', '+')
end
if life ~= ARGV[5] then
  return {'life', life, place}
end
return place
