-- Gives a request to a worker that waits for one, or to the one named worker, which did. Returns
-- whether there was one. Writes come before the message: scripts are not rolled back, and a message
-- is not taken back.
local function hand_over(id, value, deliveries, runs, ms, lease, worker)
  worker = worker or call('LPOP', q .. ':i')
  while worker do
    local token, bucket = lease_to(worker, id, value, deliveries, runs, ms, lease)
    local message = token .. ' ' .. value
    if #message > 16000 then
      -- The worker fetches it: nobody bounds what waits for a subscriber that does not read.
      message = token
    end
    if call('SPUBLISH', q .. ':c:' .. worker, message) > 0 then
      return true
    end
    call('HDEL', bucket, token)
    call('LREM', q .. ':i', 0, worker)
    call('ZREM', q .. ':h', worker)
    worker = call('LPOP', q .. ':i')
  end
  return false
end
