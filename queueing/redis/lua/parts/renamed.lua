-- Removes a lease that was renewed under another name than the worker knows. Returns its value.
local function take_renamed(token)
  local first, last = string.match(token, '^([^:]+:%d+:%d+:)%d+(:.*)$')
  for bucket = 0, 15 do
    local name, renamed = q .. ':l' .. bucket, first .. bucket .. last
    local value = call('HGET', name, renamed)
    if value then
      call('HDEL', name, renamed)
      return value
    end
  end
  return false
end
