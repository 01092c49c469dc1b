-- Ends the registrations of a worker whose messages do not arrive, and tells it in case that they do.
local function forget(worker)
  call('ZREM', q .. ':h', worker)
  call('HDEL', q .. ':n', worker)
  call('LREM', q .. ':i', 0, worker)
  call('SPUBLISH', q .. ':c:' .. worker, '!')
end
