-- with requests
-- Removes all requests. Returns nothing.
remove_requests()
return false
