-- The life of a queue is "epoch run gen": which queue it is, on which life of the server, and how many
-- of those it has seen. What was stored in an earlier one may have been leased without our knowledge.
local function parts_of_life(life)
  return string.match(life, '^(%S+) (%S+) (%d+)$')
end
-- Returns the life of the queue on this life of the server.
local function adopt(life, run)
  local epoch, was, gen = parts_of_life(life)
  if was ~= run then
    life = epoch .. ' ' .. run .. ' ' .. (gen + 1)
    call('HSET', q, 'life', life)
  end
  return life
end
