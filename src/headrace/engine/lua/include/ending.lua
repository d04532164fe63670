-- What hangs on a job's end. Keys of waiters are named after the job's own, so they share its slot.
local function base_of(q) return string.sub(q.jobs, 1, -5) end

-- Who reads a job's stream or lines along, blocked, is told of its end by an entry behind the last: include/kept.lua. The first half
-- of its id is the last one's, so that a later run goes on after it.
local function close_kept(q, id, tokens, record)
  for token, name in pairs({s = 'stream:', l = 'lines:'}) do
    if string.find(tokens, '%f[%w]' .. token .. '%f[%W]') then
      local key = base_of(q) .. name .. id
      local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
      redis.call('XADD', key, (last and string.match(last[1], '^%d+') or '0') .. '-*', 'e', string.sub(record, 3, 3))
      if redis.call('HEXISTS', base_of(q) .. 'kept', id) == 0 then redis.call('PEXPIRE', key, 60000) end
    end
  end
end

-- No record stays of a job that has just ended: nor does what it left, when those who read it along have had the time.
local function drop_kept(q, id)
  redis.call('HDEL', base_of(q) .. 'kept', id)
  redis.call('PEXPIRE', base_of(q) .. 'stream:' .. id, 60000)
  redis.call('PEXPIRE', base_of(q) .. 'lines:' .. id, 60000)
  redis.call('DEL', base_of(q) .. 'notes:' .. id)
end

-- Tell those who wait for this job, and forget what was kept for it while it ran.
local function tell(q, id, tokens, record)
  redis.call('HDEL', q.watched, id)
  if string.find(tokens, '%f[%w]p%f[%W]') then redis.call('HDEL', q.progress, id) end
  if string.find(tokens, '%f[%w]c%f[%W]') then redis.call('SREM', q.cancels, id) end
  if string.find(tokens, '%f[%w][sl]%f[%W]') then close_kept(q, id, tokens, record) end
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
