-- with leases, renamed
-- Ends leases of a worker whose work is done, and takes requests for its free slots.
-- ARGV: worker, number of requests wanted, tokens of the leases that end.
-- Returns nothing if none is wanted, or how many are registered: they come as messages; else {waiting
-- requests, registered ones, wanted ones that are neither, life of the queue, token, value, …}.
local worker = ARGV[1]
for i = 3, #ARGV do
  local token = ARGV[i]
  local bucket = string.match(token, '^[^:]+:%d+:%d+:(%d+)')
  if call('HDEL', q .. ':l' .. bucket, token) == 0 and not take_renamed(token) then
    -- The lease had ended. The work is done all the same, whoever has the request now.
    local id = string.match(token, '^[^:]+')
    if call('HDEL', q .. ':e', id) == 0 then
      call('ZADD', q .. ':k', now(), id)
    else
      call('HDEL', q .. ':t', id)
      for _, part in ipairs({':w', ':r', ':d'}) do
        call('ZREM', q .. part, id)
      end
    end
  end
end
-- Not for ever, whatever a worker sends.
local wanted = math.min(tonumber(ARGV[2]), 1000)
if wanted <= 0 then
  return false
end
local function register(count)
  if count == 1 then
    call('RPUSH', q .. ':i', worker)
  elseif count > 0 then
    local registered = {}
    for i = 1, count do
      registered[i] = worker
    end
    call('RPUSH', q .. ':i', unpack(registered))
  end
end
local kinds = call('EXISTS', q .. ':w', q .. ':r')
if kinds == 0 then
  register(wanted)
  return wanted
end
local m = call('HMGET', q, 'life', 'lease', 'taken')
local life, lease = m[1], m[2]
local ms = now()
local answer, size, taken = {0, 0, 0, life}, 0, 0
local line = kinds == 2 and ':r' or ':w'
while wanted > 0 and size < 4194304 do
  local id = call('ZPOPMIN', q .. line)[1]
  if id then
    local value = call('HGET', q .. ':e', id)
    if value then
      local deliveries, runs = 0, nil
      if line == ':r' then
        local ticket = call('HGET', q .. ':t', id) or '0:0'
        deliveries, runs = string.match(ticket, '^(%d+):(%d+)$')
        call('HDEL', q .. ':t', id)
      else
        runs = string.match(value, '^%d+ %d+ %d+ %d+ (%d+)\n')
      end
      call('HDEL', q .. ':e', id)
      local token = lease_to(worker, id, value, deliveries + 1, runs, ms, lease)
      taken, wanted, size = taken + 1, wanted - 1, size + #value
      answer[2 * taken + 3], answer[2 * taken + 4] = token, value
    end
  elseif line == ':r' then
    line = ':w'
  elseif kinds == 1 then
    line, kinds = ':r', 0
  else
    break
  end
end
if taken > 0 then
  call('HINCRBY', q, 'taken', taken)
end
if wanted == 0 or size >= 4194304 then
  answer[1], answer[3] = call('ZCARD', q .. ':w'), wanted
else
  answer[2] = wanted
  register(wanted)
end
return answer
