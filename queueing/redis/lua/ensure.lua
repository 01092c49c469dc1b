-- Makes the queue unless it is there. ARGV: epoch of a new one, life of the server, lease in ms.
-- Returns nothing.
if call('HSETNX', q, 'life', ARGV[1] .. ' ' .. ARGV[2] .. ' 1') == 1 then
  call('HSET', q, 'lease', ARGV[3])
  call('SPUBLISH', q .. ':x', '+')
end
return false
