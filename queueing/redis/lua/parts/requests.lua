-- Removes all requests.
local function remove_requests()
  call('DEL', q .. ':e', q .. ':w', q .. ':r', q .. ':d', q .. ':t', q .. ':z', q .. ':k')
  for bucket = 0, 15 do
    call('DEL', q .. ':l' .. bucket)
  end
end
