#!lua flags=allow-oom
-- admin_queue_set: bound a queue, or let it age: fields of its meta hash. An empty value takes the bound away.
-- keys: jobs priority meta wake ties
-- ARGV[1] layout  [2..] field, value, …: max_running, max_length, overflow, ageing (ms)
-- returns 1
-- include: record
-- include: ties
-- include: place
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
redis.call('HSETNX', q.meta, 'layout', ARGV[1])

-- Arrivals never go back: what has waited keeps the age it has. When nothing stands in such an order, all is as it was before.
local function set_ageing(step)
  local aged = ageing_of(q)
  if step == '' and aged and redis.call('EXISTS', q.priority, key_of(q, 'parked')) == 0 then
    redis.call('HDEL', q.meta, 'ageing', 'aged', 'arrival')
  elseif tonumber(step) ~= (aged and aged.step or nil) then
    redis.call('HSET', q.meta, 'aged', string.format('%.17g %.0f', arrivals(q, 1), now()))
    if step == '' then redis.call('HDEL', q.meta, 'ageing') else redis.call('HSET', q.meta, 'ageing', step) end
  end
end

for i = 2, #ARGV, 2 do
  if ARGV[i] == 'ageing' then set_ageing(ARGV[i + 1])
  elseif ARGV[i + 1] == '' then redis.call('HDEL', q.meta, ARGV[i]) else redis.call('HSET', q.meta, ARGV[i], ARGV[i + 1]) end
end
redis.call('ZADD', q.wake, 0, '1')
return 1
