-- Removes the queue; the registrations of workers end. Returns nothing.
call('DEL', q)
for _, part in ipairs({'e', 'w', 'l', 'r', 'd', 't', 'z', 'i', 'h'}) do
  call('DEL', q .. ':' .. part)
end
call('SPUBLISH', q .. ':x', '-')
return false
