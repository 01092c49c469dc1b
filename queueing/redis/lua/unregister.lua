-- Ends the registrations of a worker. ARGV: worker. Returns how many there were: as many requests
-- as are missing to the number that was registered are on their way.
return call('LREM', q .. ':i', 0, ARGV[1])
