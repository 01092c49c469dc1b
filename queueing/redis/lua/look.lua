-- with leases, hand_over, give_back, lost_leases, forget, life, state, begin
-- Makes the queue unless it is there, ends leases whose time is over, and tells what became of it.
-- ARGV: most runs of a request or 0, time in ms of the look before, life of the server, epoch of a new
-- queue or '' to make none, its lease in ms.
-- Returns the state (see state), the time in ms, and the ids of requests whose every run has ended
-- since the look before.
local most, run = tonumber(ARGV[1]), ARGV[3]
if ARGV[4] ~= '' then
  begin(ARGV[4], run, ARGV[5])
end
local life, width = present_life()
if not life then
  return state()
end
adopt(life, run)
local t = call('TIME')
local ms = t[1] * 1000 + math.floor(t[2] / 1000)
local present = bucket_of(t, width)
-- Workers that are gone without a word. What is given back may go to one of them: all are forgotten
-- first.
local gone = {}
for _, worker in ipairs(call('ZRANGEBYSCORE', q .. ':h', '-inf', t[1] - 50, 'LIMIT', 0, 100)) do
  forget(worker)
  gone[#gone + 1] = worker
end
local ended = {}
for age = 9, 15 do
  local name = q .. ':l' .. (present - age) % 16
  if call('EXISTS', name) == 1 then
    local found = call('HSCAN', name, 0, 'COUNT', 100)[2]
    for i = 1, #found, 2 do
      local token, value = found[i], found[i + 1]
      call('HDEL', name, token)
      local id, deliveries, runs, _, worker = parts_of(token)
      ended[#ended + 1] = {id, value, deliveries, runs + 1}
      if not gone[worker] then
        gone[worker] = true
        forget(worker)
      end
    end
  end
end
for _, worker in ipairs(gone) do
  give_back_leases(worker, {}, present)
end
give_back_due(ms, present)
for _, lease in ipairs(ended) do
  local id, value, deliveries, runs = unpack(lease)
  if most == 0 or runs < most then
    give_back(id, value, deliveries, runs, present)
  elseif call('ZREM', q .. ':k', id) == 0 then
    call('ZADD', q .. ':z', ms, id)
  end
end
call('ZREMRANGEBYSCORE', q .. ':z', '-inf', ms - 600000)
-- The workers of requests that ended while they were leased were told, an hour ago.
call('ZREMRANGEBYSCORE', q .. ':k', '-inf', t[1] - 3600)
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
local answer = state()
answer[7] = ms
for _, id in ipairs(call('ZRANGEBYSCORE', q .. ':z', ARGV[2], '+inf', 'LIMIT', 0, 1000)) do
  answer[#answer + 1] = id
end
return answer
