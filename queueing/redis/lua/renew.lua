-- Starts the time of leases again, and tells that the worker lives.
-- ARGV: worker, tokens. Returns nothing.
local lease = call('HGET', q, 'lease')
if not lease then
  return false
end
local at = now()
call('ZADD', q .. ':h', at, ARGV[1])
for i = 2, #ARGV do
  call('ZADD', q .. ':l', 'XX', at + lease, ARGV[i])
end
return false
