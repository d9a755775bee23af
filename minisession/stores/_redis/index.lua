-- Note in the index of a principal that a session is theirs, until a time by the writer's clock.
-- What has passed its time goes, and the whole index goes when all has.
--
-- KEYS: the index, a sorted set of handles by that time. ARGV: handle, until, now.
local key, now = KEYS[1], tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[3])
redis.call('ZADD', key, 'GT', ARGV[2], ARGV[1])
local life = math.max(0, math.min(math.ceil((tonumber(ARGV[2]) - now) * 1000), 2 ^ 53))
if redis.call('PTTL', key) < life then
  redis.call('PEXPIRE', key, string.format('%.0f', life))
end
return 1
