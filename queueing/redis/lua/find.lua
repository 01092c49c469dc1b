-- Tells what became of a publish on a connection that was lost.
-- ARGV: process, its number as in publish, id.
-- Returns {'new'}: it was not executed, and what an earlier connection has sent is stale from now on;
-- {'waits', sequence}; {'leased', sequence}; {'gone'}: it was stored and has left the queue.
local last, id = call('HGET', q, ARGV[1]) or '', ARGV[3]
local value = call('HGET', q .. ':e', id)
if value then
  return {'waits', tonumber(string.match(value, '^%d+'))}
end
if string.sub(last, 8) >= string.sub(ARGV[2], 8) then
  for bucket = 0, 15 do
    -- One round: the server compares faster than a script.
    local name = q .. ':l' .. bucket
    local found = call('HSCAN', name, 0, 'MATCH', id .. ':*', 'COUNT', 1000000000)[2]
    if found[2] then
      return {'leased', tonumber(string.match(found[2], '^%d+'))}
    end
  end
  return {'gone'}
end
call('HSET', q, ARGV[1], string.sub(ARGV[2], 1, 7) .. string.sub(last .. '0000000000000000', 8, 16))
return {'new'}
