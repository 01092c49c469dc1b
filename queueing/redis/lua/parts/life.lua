-- The life of a queue is "epoch run gen lease": which queue it is, on which life of the server, how
-- many of those it has seen, and for how many ms its requests are leased. What was stored in an earlier
-- life of the server may have been leased without our knowledge.
local function parts_of_life(life)
  return string.match(life, '^(%S+) (%S+) (%d+) (%d+)$')
end
-- Returns the life of the queue, false if there is none, and an eighth of a lease in seconds.
local function present_life()
  local life = call('HGET', q, 'life')
  if not life then
    return false, 1
  end
  local _, _, _, lease = parts_of_life(life)
  return life, lease / 8000
end
-- Returns the life of the queue on this life of the server.
local function adopt(life, run)
  local epoch, was, gen, lease = parts_of_life(life)
  if was ~= run then
    life = epoch .. ' ' .. run .. ' ' .. (gen + 1) .. ' ' .. lease
    call('HSET', q, 'life', life)
  end
  return life
end
