-- Sends a message between gateway processes. ARGV: channel, channel of those who subscribed to all
-- subjects with the same beginning, message. Returns how many got it.
return call('SPUBLISH', ARGV[1], ARGV[3]) + call('SPUBLISH', ARGV[2], ARGV[3])
