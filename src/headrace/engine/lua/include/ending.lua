-- What hangs on a job's end. Keys of waiters are named after the job's own, so they share its slot.
local function base_of(q) return string.sub(q.jobs, 1, -5) end

-- Tell those who wait for this job, and forget what was kept for it while it ran.
local function tell(q, id, tokens, record)
  redis.call('HDEL', q.watched, id)
  if string.find(tokens, '%f[%w]p%f[%W]') then redis.call('HDEL', q.progress, id) end
  if string.find(tokens, '%f[%w]c%f[%W]') then redis.call('SREM', q.cancels, id) end
  for waiter in string.gmatch(tokens, 'w:(%S+)') do
    local key = base_of(q) .. 'waiter:' .. waiter
    redis.call('RPUSH', key, record)
    redis.call('PEXPIRE', key, 60000)
  end
end

-- End a job inside a script: `keep_in` is done or dead; `record` has its new state already.
local function finish(q, id, record, keep_in, keep_until, counter)
  redis.call('HSET', q.jobs, id, record)
  redis.call('ZADD', keep_in, keep_until, id)
  redis.call('HINCRBY', q.stats, counter, 1)
  local tokens = redis.call('HGET', q.watched, id)
  if tokens then tell(q, id, tokens, record) end
  local ties = ties_of(q, id)
  if ties then untie(q, id, ties, record) end
end

local function is_cancel_asked(q, id) return redis.call('SISMEMBER', q.cancels, id) == 1 end
