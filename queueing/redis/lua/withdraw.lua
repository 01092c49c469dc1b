-- Removes a request and tells the workers. ARGV: id, process, and if a publish of it may still be
-- on its way 1e9 * connection, else ''.
-- Returns its position, 0 if it was leased, -1 if it was not there.
local id = ARGV[1]
if ARGV[3] ~= '' and call('EXISTS', q) == 1 then
  -- What an earlier connection has sent is stale from now on.
  local last = tonumber(call('HGET', q, ARGV[2]) or 0)
  if last < tonumber(ARGV[3]) then
    call('HSET', q, ARGV[2], tonumber(ARGV[3]) + last % 1e9)
  end
end
local position = -1
local rank = call('ZRANK', q .. ':w', id)
if call('HDEL', q .. ':e', id) == 1 then
  position = rank and rank + 1 or 0
  if rank then
    call('ZREM', q .. ':w', id)
  else
    call('ZREM', q .. ':r', id)
    call('ZREM', q .. ':d', id)
  end
  call('HDEL', q .. ':t', id)
end
call('SPUBLISH', q .. ':x', id)
return position
