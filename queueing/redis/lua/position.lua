-- Returns the position of a request, 0 if it does not wait. ARGV: id.
local rank = call('ZRANK', q .. ':w', ARGV[1])
return rank and rank + 1 or 0
