-- Returns which of the requests are not in the queue, as indices from 0. ARGV: ids.
local absent = {}
for i, id in ipairs(ARGV) do
  if call('HEXISTS', q .. ':e', id) == 0 then
    absent[#absent + 1] = i
  end
end
if #absent == 0 then
  return absent
end
local leased = {}
for bucket = 0, 15 do
  for _, token in ipairs(call('HKEYS', q .. ':l' .. bucket)) do
    leased[string.match(token, '^[^:]+')] = true
  end
end
local missing = {}
for _, i in ipairs(absent) do
  if not leased[ARGV[i]] then
    missing[#missing + 1] = i - 1
  end
end
return missing
