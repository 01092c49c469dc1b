-- Returns which of the requests are not in the queue, as indices from 0. ARGV: ids.
local leased = {}
for bucket = 0, 15 do
  for _, token in ipairs(call('HKEYS', q .. ':l' .. bucket)) do
    leased[string.match(token, '^[^:]+')] = true
  end
end
local absent = {}
for i, id in ipairs(ARGV) do
  if not leased[id] and call('HEXISTS', q .. ':e', id) == 0 then
    absent[#absent + 1] = i - 1
  end
end
return absent
