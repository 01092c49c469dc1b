-- with leases, hand_over, give_back
-- Gives back what was given back with a delay that is over. Returns nothing.
local lease = call('HGET', q, 'lease')
if lease then
  give_back_due(now(), lease)
end
return false
