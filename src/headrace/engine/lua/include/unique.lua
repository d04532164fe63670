-- Unique keys. `unique`: key -> id of the job that has it; `throttled`: keys that stay taken until an instant, whatever the job does.

local function owner_of(q, key, now_ms)
  local owner = redis.call('HGET', key_of(q, 'unique'), key)
  if q.throttles == nil then q.throttles = redis.call('EXISTS', key_of(q, 'throttled')) == 1 end
  local ends = owner and q.throttles and redis.call('ZSCORE', key_of(q, 'throttled'), key)
  return not (ends and tonumber(ends) <= now_ms) and owner
end

-- Those of several keys, by number; false where a key is free.
local function owners_of(q, keys, now_ms)
  if #keys == 0 then return keys end
  local found = redis.call('HMGET', key_of(q, 'unique'), unpack(keys))
  if q.throttles == nil then q.throttles = redis.call('EXISTS', key_of(q, 'throttled')) == 1 end
  for i = 1, q.throttles and #keys or 0 do found[i] = found[i] and owner_of(q, keys[i], now_ms) end
  return found
end

-- Make a job the owner of its key.
local function bind(q, id, ties, now_ms)
  redis.call('HSET', key_of(q, 'unique'), ties.u, id)
  if ties.m then
    redis.call('ZADD', key_of(q, 'throttled'), now_ms + ties.m, ties.u)
    q.throttles = true
  elseif q.throttles ~= false then
    redis.call('ZREM', key_of(q, 'throttled'), ties.u)
  end
end
