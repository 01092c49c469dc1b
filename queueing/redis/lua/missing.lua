-- Returns which of the requests are not in the queue, as indices from 0. ARGV: ids.
local absent = {}
for i, id in ipairs(ARGV) do
  if call('HEXISTS', q .. ':e', id) == 0 then
    absent[#absent + 1] = i - 1
  end
end
return absent
