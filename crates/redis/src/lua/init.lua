-- Makes the facts of a store, unless there are some.
--
-- KEYS: the store's facts
-- ARGV: format, secret, floor
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'exists'}
end
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'secret', ARGV[2], 'floor', ARGV[3])
return {'done'}
