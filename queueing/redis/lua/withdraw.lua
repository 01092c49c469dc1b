-- Removes a request and tells the workers.
-- ARGV: id, process, and if a publish of it may still be on its way 7 digits of the connection.
-- Returns its position, 0 if it does not wait. A lease of it that ends is its last.
local id = ARGV[1]
if ARGV[3] ~= '' and call('EXISTS', q) == 1 then
  -- What an earlier connection has sent is stale from now on.
  local last = call('HGET', q, ARGV[2]) or ''
  if string.sub(last, 1, 7) < ARGV[3] then
    call('HSET', q, ARGV[2], ARGV[3] .. string.sub(last .. '0000000000000000', 8, 16))
  end
end
local rank = call('ZRANK', q .. ':w', id)
if call('HDEL', q .. ':e', id) == 0 then
  call('ZADD', q .. ':k', call('TIME')[1], id)
elseif rank then
  call('ZREM', q .. ':w', id)
  call('HINCRBY', q, 'gone', 1)
else
  call('HDEL', q .. ':t', id)
  call('ZREM', q .. ':r', id)
  call('ZREM', q .. ':d', id)
end
call('SPUBLISH', q .. ':x', id)
return rank and rank + 1 or 0
