-- Raises the floor. A lower one changes nothing.
--
-- KEYS: the store's facts
-- ARGV: the floor, eight bytes
local function less(a, b)
  for at = 1, 8 do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return false
end

local floor = redis.call('HGET', KEYS[1], 'floor')
if not floor then
  return {'gone'}
end
if less(floor, ARGV[1]) then
  redis.call('HSET', KEYS[1], 'floor', ARGV[1])
end
return {'done'}
