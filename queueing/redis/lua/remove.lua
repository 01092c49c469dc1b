-- with requests
-- Removes the queue; the registrations of workers end. Returns nothing.
remove_requests()
call('DEL', q, q .. ':i', q .. ':h', q .. ':n')
call('SPUBLISH', q .. ':x', '-')
return false
