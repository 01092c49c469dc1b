-- Removes all requests. Returns nothing.
for _, part in ipairs({'e', 'w', 'l', 'r', 'd', 't', 'z'}) do
  call('DEL', q .. ':' .. part)
end
return false
