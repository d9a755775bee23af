-- What the index of a principal is told: that a session is theirs, until a time by the writer's
-- clock. What has passed its time goes, and the whole index goes when all has.
--
-- The index is a sorted set of handles by that time. Returns nil, or the error that it met, which
-- comes before anything is written.
local function list(index, handle, listed_until, now)
  local added = redis.pcall('ZADD', index, 'GT', listed_until, handle)
  if type(added) == 'table' and added.err then return added end
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  local life = math.ceil((tonumber(listed_until) - tonumber(now)) * 1000)
  life = math.max(0, math.min(life, 2 ^ 53))
  if redis.call('PTTL', index) < life then
    redis.call('PEXPIRE', index, string.format('%.0f', life))
  end
end
