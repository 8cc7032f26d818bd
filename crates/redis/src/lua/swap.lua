-- Replaces a record if its revision is still the one that was expected.
--
-- KEYS: the record, the bucket's facts, the bucket's index of each state (1 to 5)
-- ARGV: the last moment at which it may take place, in milliseconds of this server's clock;
--       the revision that is expected, eight bytes, or '' for absent;
--       what stands afterwards, beginning with its revision and the byte of its state, or '';
--       the key id; its score in the index;
--       the channel of the key if nobody is at work on it afterwards, or ''
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then
  return {'late', now}
end

local largest = redis.call('HGET', KEYS[2], 'revision')
if not largest then
  return {'gone', now}
end

local found = redis.call('GET', KEYS[1])
local same
if ARGV[2] == '' then
  same = not found
else
  same = found and string.sub(found, 1, 8) == ARGV[2]
end
if not same then
  return {'conflict', now, found}
end

-- Lua compares strings by the server's locale; these are numbers.
local function less(a, b)
  for at = 1, 8 do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return false
end

local state
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
else
  -- The first write, since it is the one that is refused when the memory is used up.
  redis.call('SET', KEYS[1], ARGV[3])
  state = string.byte(ARGV[3], 9)
  redis.call('ZADD', KEYS[2 + state], ARGV[5], ARGV[4])
  local revision = string.sub(ARGV[3], 1, 8)
  if less(largest, revision) then
    redis.call('HSET', KEYS[2], 'revision', revision)
  end
end
local before = found and string.byte(found, 9)
if before and before ~= state and KEYS[2 + before] then
  redis.call('ZREM', KEYS[2 + before], ARGV[4])
end

-- Whoever waits for the key has subscribed here. Only then it is told, since a cluster tells all of
-- its nodes. What our user may not do is left out: those who wait look by themselves too.
if ARGV[6] ~= '' then
  local heard = redis.pcall('PUBSUB', 'NUMSUB', ARGV[6])
  if not heard.err and heard[2] > 0 then
    redis.pcall('PUBLISH', ARGV[6], '')
  end
end
return {'done', now}
