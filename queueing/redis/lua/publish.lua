-- Stores a request, or gives it to a worker that waits.
-- ARGV: process, limit of waiting requests, lease in ms, life of the server, epoch or '', id,
-- 1e9 * connection + number, 'again' or runs or '', envelope.
-- Returns the sequence if it waits, -sequence if a worker has it; {'epoch', epoch, either of these}
-- if the queue's epoch is another one; {'full'}; {'gone'}: a repeated request was stored and has
-- left the queue; {'stale'}: the process has a newer connection.
local process, run, epoch, id = ARGV[1], ARGV[4], ARGV[5], ARGV[6]
local number, mode = tonumber(ARGV[7]), ARGV[8]
local m = call('HMGET', q, 'epoch', 'run', 'gen', 'seq', 'high', 'leases', 'lease', process)
local last = tonumber(m[8] or 0)
if math.floor(last / 1e9) > math.floor(number / 1e9) then
  return {'stale'}
end
local envelopes = q .. ':e'
if mode == 'again' and last % 1e9 >= number % 1e9 and call('HEXISTS', envelopes, id) == 0 then
  return {'gone'}
end
local worker = call('LPOP', q .. ':i')
if not worker and call('ZCARD', q .. ':w') >= tonumber(ARGV[2]) and
  call('HEXISTS', envelopes, id) == 0 then
  return {'full'}
end
local at = now()
local is_new = not m[1]
local gen, high, leases, lease = m[3], m[5], m[6], m[7]
if is_new then
  m[1], gen, high, leases, lease = process .. '.' .. ARGV[7], 1, 0, 0, ARGV[3]
  call('HSET', q, 'epoch', m[1], 'run', run, 'gen', 1, 'high', 0, 'leases', 0, 'lease', lease)
elseif m[2] ~= run then
  gen = adopt(run, gen)
end
local sequence = (m[4] or 0) + 1
number = math.max(last, number)
local runs = tonumber(mode) or 0
local value = sequence .. ' ' .. at .. ' ' .. gen .. ' ' .. runs .. '\n' .. ARGV[9]
if call('HSETNX', envelopes, id, value) == 0 then
  if worker then
    call('LPUSH', q .. ':i', worker)
  end
  sequence = tonumber(string.match(call('HGET', envelopes, id), '^%d+'))
  call('HSET', q, process, number)
elseif worker then
  call('HSET', q, 'seq', sequence, 'high', sequence, 'leases', leases + 1, process, number)
  if hand_over(id, value, 1, runs, at, lease, worker) then
    sequence = -sequence
  else
    call('HSET', q, 'high', high, 'leases', leases)
    call('ZADD', q .. ':w', sequence, id)
  end
else
  call('HSET', q, 'seq', sequence, process, number)
  call('ZADD', q .. ':w', sequence, id)
end
if is_new then
  call('SPUBLISH', q .. ':x', '+')
end
if epoch ~= m[1] then
  return {'epoch', m[1], sequence}
end
return sequence
