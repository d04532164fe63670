#!lua flags=allow-oom
-- index_set: begin to keep an index of a queue's jobs, note some of those that are there, or end it.
-- keys: jobs meta
-- ARGV[1] layout  [2] on | off | slice | whole | again | strays  [3] slice: cursor; again: ids follow [3..]; strays: term, id of each
-- returns on, whole and off: 1 when that changed something; slice: the next cursor ('0' at the end); again and strays: how many
-- include: record
-- include: ties
-- include: index
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local verb = ARGV[2]
if verb == 'on' then return redis.call('HSETNX', q.meta, 'indexed', '0') end
if verb == 'off' then return redis.call('HDEL', q.meta, 'indexed') end
local state = redis.call('HGET', q.meta, 'indexed')
if verb == 'whole' then
  if state ~= '0' then return 0 end
  redis.call('HSET', q.meta, 'indexed', '1')
  return 1
end
local ids, records = {}, {}
local function take(id, record)
  if record then ids[#ids + 1], records[#records + 1] = id, record end
end
if verb == 'slice' then
  if not state then return '0' end
  local slice = redis.call('HSCAN', q.jobs, ARGV[3], 'COUNT', 200)
  for i = 1, #slice[2], 2 do take(slice[2][i], slice[2][i + 1]) end
  index_again(q, ids, records)
  return slice[1]
end
if verb == 'strays' then
  local count = 0
  for i = 3, #ARGV, 2 do
    local term, key = ARGV[i], key_of(q, 'index:' .. ARGV[i])
    local terms = '\0' .. (redis.call('HGET', key_of(q, 'index'), ARGV[i + 1]) or '') .. '\0'
    if not string.find(terms, '\0' .. term .. '\0', 1, true) then count = count + redis.call('ZREM', key, ARGV[i + 1]) end
    if redis.call('EXISTS', key) == 0 then redis.call('ZREM', key_of(q, 'terms'), term) end
  end
  return count
end
local all = {}
for i = 3, #ARGV do
  all[#all + 1] = ARGV[i]
  take(ARGV[i], redis.call('HGET', q.jobs, ARGV[i]))
end
index_drop(q, all)
if state then index_put(q, ids, records) end
return #all
