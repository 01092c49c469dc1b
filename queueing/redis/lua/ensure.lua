-- Makes the queue unless it is there. ARGV: epoch of a new one, life of the server, lease in ms.
-- Returns its epoch.
local epoch = call('HGET', q, 'epoch')
if not epoch then
  epoch = ARGV[1]
  call('HSET', q, 'epoch', epoch, 'run', ARGV[2], 'gen', 1, 'high', 0, 'leases', 0, 'lease', ARGV[3])
  call('SPUBLISH', q .. ':x', '+')
end
return epoch
