-- with leases, hand_over, give_back, lost_leases, life
-- Begins, or begins again, what a worker has with the queue. Its former registrations end. On new
-- links its leases that it does not know of end too: they were on their way when a link was lost.
-- ARGV: worker, life of the server, 1 on new links or 0, tokens that the worker has.
-- Returns {life of the queue or '', time in seconds}.
local worker = ARGV[1]
call('LREM', q .. ':i', 0, worker)
call('HDEL', q .. ':n', worker)
local life, width = present_life()
if not life then
  return {'', 0}
end
life = adopt(life, ARGV[2])
local t = call('TIME')
local bucket = bucket_of(t, width)
call('ZADD', q .. ':h', t[1], worker)
if ARGV[3] == '0' then
  return {life, tonumber(t[1])}
end
local has = {}
for i = 4, #ARGV do
  local id, deliveries, runs = parts_of(ARGV[i])
  has[id .. ':' .. deliveries .. ':' .. runs] = true
end
give_back_leases(worker, has, bucket)
return {life, tonumber(t[1])}
