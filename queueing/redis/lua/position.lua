-- Returns the position of a request, 0 if it is leased or unknown. ARGV: id.
local rank = redis.call('ZRANK', KEYS[1] .. ':w', ARGV[1])
return rank and rank + 1 or 0
