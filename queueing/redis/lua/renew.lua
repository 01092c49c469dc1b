-- with leases, renamed, life
-- Starts the time of leases again, and tells that the worker lives.
-- ARGV: worker, tokens. Returns the tokens under which the leases go on, '' for those that had ended.
local life, width = present_life()
if not life then
  return {}
end
local t = call('TIME')
call('ZADD', q .. ':h', t[1], ARGV[1])
local present = bucket_of(t, width)
local renewed = {}
for i = 2, #ARGV do
  local token = ARGV[i]
  local first, bucket, last = string.match(token, '^([^:]+:%d+:%d+:)(%d+)(:.*)$')
  renewed[i - 1] = token
  if tonumber(bucket) ~= present then
    local value = call('HGET', q .. ':l' .. bucket, token)
    if value then
      call('HDEL', q .. ':l' .. bucket, token)
    else
      value = take_renamed(token)
    end
    renewed[i - 1] = value and first .. present .. last or ''
    if value then
      call('HSET', q .. ':l' .. present, renewed[i - 1], value)
    end
  end
end
return renewed
