-- Gives a request to a worker that waits for one. Returns whether there was one.
local function hand_over(id, value, deliveries, runs, bucket)
  while true do
    local worker = call('LPOP', q .. ':i')
    if not worker then
      return false
    end
    if lease_to(worker, id, value, deliveries, runs, bucket, 0) then
      return true
    end
    call('LREM', q .. ':i', 0, worker)
    call('ZREM', q .. ':h', worker)
  end
end
