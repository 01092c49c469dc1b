-- with leases, renamed
-- Ends leases of a worker whose work is done, and takes requests for its free slots. They come as
-- messages, at once or when they are published.
-- ARGV: worker, number of requests wanted, eighth of a lease in seconds, tokens of the leases that end.
-- Returns how many of these calls the worker has made since it was bound, below 0 if no request
-- waits. Nobody may wait for the reply: a later one tells whether this call was executed.
local worker = ARGV[1]
local calls = call('HINCRBY', q .. ':n', worker, 1)
for i = 4, #ARGV do
  local token = ARGV[i]
  local bucket = string.match(token, '^[^:]+:%d+:%d+:(%d+)')
  if call('HDEL', q .. ':l' .. bucket, token) == 0 and not take_renamed(token) then
    -- The lease had ended. The work is done all the same, whoever has the request now.
    local id = string.match(token, '^[^:]+')
    if call('HDEL', q .. ':e', id) == 0 then
      call('ZADD', q .. ':k', call('TIME')[1], id)
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
  return call('EXISTS', q .. ':w') == 1 and calls or -calls
end
local kinds = call('EXISTS', q .. ':w', q .. ':r')
if kinds > 0 then
  local bucket = bucket_of(call('TIME'), ARGV[3])
  local line = kinds == 2 and ':r' or ':w'
  local waiting = call('ZCARD', q .. ':w')
  while wanted > 0 do
    local id = call('ZPOPMIN', q .. line)[1]
    if id then
      local value = call('HGET', q .. ':e', id)
      if value then
        local deliveries, runs = 0, nil
        if line == ':r' then
          local ticket = call('HGET', q .. ':t', id) or '0:0'
          deliveries, runs = string.match(ticket, '^(%d+):(%d+)$')
          call('HDEL', q .. ':t', id)
          call('HINCRBY', q, 'again', 1)
        else
          runs = string.match(value, '^%d+ %d+ %d+ %d+ (%d+)\n')
          waiting = waiting - 1
        end
        call('HDEL', q .. ':e', id)
        if not lease_to(worker, id, value, deliveries + 1, runs, bucket, waiting) then
          -- Its link for messages is gone, which it does not know yet.
          call('HSET', q .. ':e', id, value)
          call('HSET', q .. ':t', id, deliveries .. ':' .. runs)
          call('ZADD', q .. ':r', string.match(value, '^%d+'), id)
          return calls
        end
        wanted = wanted - 1
      end
    elseif line == ':r' then
      line = ':w'
    elseif kinds == 1 then
      line, kinds = ':r', 0
    else
      break
    end
  end
  if wanted == 0 then
    return waiting > 0 and calls or -calls
  end
end
if wanted == 1 then
  call('RPUSH', q .. ':i', worker)
else
  local registered = {}
  for i = 1, wanted do
    registered[i] = worker
  end
  call('RPUSH', q .. ':i', unpack(registered))
end
return -calls
