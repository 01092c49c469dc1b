-- What several scripts need. KEYS[1] is the queue's hash; all other keys begin with its name.
local q = KEYS[1]
local call = redis.call

-- Returns the server's time in milliseconds.
local function now()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Counts a life of the server: what was stored before may have been leased without our knowledge.
local function adopt(run, gen)
  gen = gen + 1
  call('HSET', q, 'run', run, 'gen', gen)
  return gen
end

-- Gives a request to a worker that waits for one, or to worker, which was taken from those.
-- Returns whether there was one. Writes come before the message: scripts are not rolled back, and a
-- message is not taken back.
local function hand_over(id, value, deliveries, runs, at, lease, worker)
  worker = worker or call('LPOP', q .. ':i')
  while worker do
    local token = id .. ':' .. deliveries .. ':' .. runs .. ':' .. worker
    call('ZADD', q .. ':l', at + lease, token)
    local message = token .. ' ' .. value
    if #message > 16000 then
      -- The worker fetches it: nobody bounds what waits for a subscriber that does not read.
      message = token
    end
    if call('SPUBLISH', q .. ':c:' .. worker, message) > 0 then
      return true
    end
    call('ZREM', q .. ':l', token)
    call('LREM', q .. ':i', 0, worker)
    call('ZREM', q .. ':h', worker)
    worker = call('LPOP', q .. ':i')
  end
  return false
end

-- Takes a token apart: request id, deliveries, runs, worker.
local function parts(token)
  return string.match(token, '^([^:]+):(%d+):(%d+):(.*)$')
end

-- Gives a request whose lease has ended to a worker that waits, or stores it before all others.
local function give_back(id, deliveries, runs, at, lease)
  local value = call('HGET', q .. ':e', id)
  if not value then
    call('HDEL', q .. ':t', id)
    return
  end
  call('HSET', q .. ':t', id, deliveries .. ':' .. runs)
  if hand_over(id, value, deliveries + 1, runs, at, lease) then
    call('HINCRBY', q, 'leases', 1)
  else
    call('ZADD', q .. ':r', string.match(value, '^%d+'), id)
  end
end

-- Gives back what was given back with a delay that is over.
local function give_back_due(at, lease)
  local due = call('ZRANGEBYSCORE', q .. ':d', '-inf', at, 'LIMIT', 0, 100)
  for _, id in ipairs(due) do
    call('ZREM', q .. ':d', id)
    local ticket = call('HGET', q .. ':t', id)
    if ticket then
      local deliveries, runs = string.match(ticket, '^(%d+):(%d+)$')
      give_back(id, deliveries, runs, at, lease)
    end
  end
end
