-- Ends leases whose time is over, and tells what became of the queue.
-- ARGV: most runs of a request or 0, time in ms of the look before.
-- Returns {epoch or '', highest sequence, highest leased, leases, waiting, leased, time in ms, ids of
-- requests whose every run has ended since the look before, …}.
local m = call('HMGET', q, 'epoch', 'lease')
if not m[1] then
  return {'', 0, 0, 0, 0, 0, 0}
end
local at, lease, most = now(), m[2], tonumber(ARGV[1])
-- Workers that are gone without a word.
for _, worker in ipairs(call('ZRANGEBYSCORE', q .. ':h', '-inf', at - 30000, 'LIMIT', 0, 100)) do
  call('ZREM', q .. ':h', worker)
  call('LREM', q .. ':i', 0, worker)
end
give_back_due(at, lease)
for _, token in ipairs(call('ZRANGEBYSCORE', q .. ':l', '-inf', at, 'LIMIT', 0, 100)) do
  call('ZREM', q .. ':l', token)
  local id, deliveries, runs = parts(token)
  runs = runs + 1
  if most > 0 and runs >= most then
    if call('HDEL', q .. ':e', id) == 1 then
      call('ZADD', q .. ':z', at, id)
    end
    call('HDEL', q .. ':t', id)
  else
    give_back(id, deliveries, runs, at, lease)
  end
end
if call('HLEN', q) > 200 then
  -- Processes that are gone, in the order of their starts.
  local processes = {}
  for _, field in ipairs(call('HKEYS', q)) do
    if string.sub(field, 1, 2) == 'p-' then
      processes[#processes + 1] = field
    end
  end
  table.sort(processes)
  call('HDEL', q, unpack(processes, 1, #processes - 100))
end
local latest = call('HMGET', q, 'seq', 'high', 'leases')
local leased = call('ZCARD', q .. ':l') + call('ZCARD', q .. ':r') + call('ZCARD', q .. ':d')
local answer = {
  m[1], tonumber(latest[1] or 0), tonumber(latest[2]), tonumber(latest[3]),
  call('ZCARD', q .. ':w'), leased, at
}
call('ZREMRANGEBYSCORE', q .. ':z', '-inf', at - 600000)
for _, id in ipairs(call('ZRANGEBYSCORE', q .. ':z', ARGV[2], '+inf', 'LIMIT', 0, 1000)) do
  answer[#answer + 1] = id
end
return answer
