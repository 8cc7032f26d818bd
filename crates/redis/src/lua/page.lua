-- What follows an entry of an index, which may be gone by now.
--
-- KEYS: the index
-- ARGV: the entry's score and key id, or '' for the beginning; how many
local function less(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local from = 0
if ARGV[2] ~= '' then
  -- Entries of one score are in the order of their bytes: look between the first and the last.
  from = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1])
  local past = from + redis.call('ZCOUNT', KEYS[1], ARGV[1], ARGV[1])
  while from < past do
    local middle = math.floor((from + past) / 2)
    if less(ARGV[2], redis.call('ZRANGE', KEYS[1], middle, middle)[1]) then
      past = middle
    else
      from = middle + 1
    end
  end
end
return redis.call('ZRANGE', KEYS[1], from, from + ARGV[3] - 1, 'WITHSCORES')
