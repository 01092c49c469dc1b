-- with begin
-- Makes the queue unless it is there. ARGV: epoch of a new one, life of the server, lease in ms.
-- Returns nothing.
begin(ARGV[1], ARGV[2], ARGV[3])
return false
