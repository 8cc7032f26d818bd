-- Says on a channel that something has changed, as a swap does; for trying out whether it is heard.
--
-- ARGV: the channel
local heard = redis.pcall('PUBSUB', 'NUMSUB', ARGV[1])
if not heard.err and heard[2] > 0 then
  redis.pcall('PUBLISH', ARGV[1], '')
end
return {'done'}
