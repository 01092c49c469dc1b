-- Makes the queue unless it is there, with this epoch and lease in ms.
local function begin(epoch, run, lease)
  if call('HSETNX', q, 'life', epoch .. ' ' .. run .. ' 1 ' .. lease) == 1 then
    call('SPUBLISH', q .. ':x', '+')
  end
end
