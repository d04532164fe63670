-- A schedule's entry is Python's to read, but for its digest; core/schedule.py is the other half of this contract.
local function digest_in(entry) return string.sub(entry, 3, 18) end

-- true, or the answer to give instead: the entry is no longer the one that was read, or this very call has been here.
local function may_write(q, name, expected, new)
  local stored = redis.call('HGET', q.schedule_specs, name)
  if (stored and redis.sha1hex(stored) or '') == expected then return true end
  if (stored or '') == new then return 'done' end
  return 'changed'
end

-- `look_at`: when somebody must look at it, '' for never.
local function write_entry(q, name, new, look_at)
  if new == '' then redis.call('HDEL', q.schedule_specs, name) else redis.call('HSET', q.schedule_specs, name, new) end
  if look_at == '' then redis.call('ZREM', q.schedules, name) else redis.call('ZADD', q.schedules, look_at, name) end
end
