-- Returns {epoch or '', highest sequence, highest leased, leases, waiting, leased}.
local m = call('HMGET', q, 'epoch', 'seq', 'high', 'leases')
if not m[1] then
  return {'', 0, 0, 0, 0, 0}
end
local leased = call('ZCARD', q .. ':l') + call('ZCARD', q .. ':r') + call('ZCARD', q .. ':d')
local waiting = call('ZCARD', q .. ':w')
return {m[1], tonumber(m[2] or 0), tonumber(m[3]), tonumber(m[4]), waiting, leased}
