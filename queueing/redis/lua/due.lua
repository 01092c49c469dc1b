-- with leases, hand_over, give_back, life
-- Gives back what was given back with a delay that is over. Returns nothing.
local life, width = present_life()
if life then
  local t = call('TIME')
  give_back_due(t[1] * 1000 + math.floor(t[2] / 1000), bucket_of(t, width))
end
return false
