-- Begins, or begins again, what a worker has with the queue. Its former registrations end, and so
-- do its leases that it does not know of: they were on their way when a connection was lost.
-- ARGV: worker, life of the server, tokens that the worker has.
-- Returns {epoch or '', number of the server's life, lease in ms}.
local worker = ARGV[1]
call('LREM', q .. ':i', 0, worker)
local m = call('HMGET', q, 'epoch', 'run', 'gen', 'lease')
if not m[1] then
  return {'', '', 0}
end
if m[2] ~= ARGV[2] then
  m[3] = adopt(ARGV[2], m[3])
end
local at = now()
call('ZADD', q .. ':h', at, worker)
local has = {}
for i = 3, #ARGV do
  has[ARGV[i]] = true
end
local ending = ':' .. worker
-- With more leases than this, those of lost messages run out.
for _, token in ipairs(call('ZRANGE', q .. ':l', 0, 4999)) do
  if string.sub(token, -#ending) == ending and not has[token] then
    call('ZREM', q .. ':l', token)
    local id, deliveries, runs = parts(token)
    give_back(id, deliveries, runs, at, m[4])
  end
end
return {m[1], m[3] .. '', tonumber(m[4])}
