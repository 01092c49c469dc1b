-- Gives back the leases of a worker, but for those in has: "id:deliveries:runs" → true.
local function give_back_leases(worker, has, bucket)
  local ending, looked = ':' .. worker, 0
  for number = 0, 15 do
    local name = q .. ':l' .. number
    -- With more leases than this, those of lost messages run out.
    if looked < 5000 then
      for _, token in ipairs(call('HKEYS', name)) do
        looked = looked + 1
        if string.sub(token, -#ending) == ending then
          local id, deliveries, runs = parts_of(token)
          if not has[id .. ':' .. deliveries .. ':' .. runs] then
            local value = call('HGET', name, token)
            call('HDEL', name, token)
            give_back(id, value, deliveries, runs, bucket)
          end
        end
      end
    end
  end
end
