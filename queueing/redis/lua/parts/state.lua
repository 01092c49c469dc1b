-- Returns {life or '', highest sequence, highest leased, leases, waiting, leased}: all that was stored
-- has been leased, but for what waits, and what was withdrawn while it did.
local function state()
  local m = call('HMGET', q, 'life', 'seq', 'gone', 'again')
  if not m[1] then
    return {'', 0, 0, 0, 0, 0}
  end
  local seq = tonumber(m[2] or 0)
  local waiting = call('ZCARD', q .. ':w')
  local leases = seq - waiting - (m[3] or 0) + (m[4] or 0)
  local leased = call('ZCARD', q .. ':r') + call('ZCARD', q .. ':d')
  for bucket = 0, 15 do
    leased = leased + call('HLEN', q .. ':l' .. bucket)
  end
  local first = call('ZRANGE', q .. ':w', 0, 0, 'WITHSCORES')[2]
  return {m[1], seq, first and first - 1 or seq, leases, waiting, leased}
end
