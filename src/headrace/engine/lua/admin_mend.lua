#!lua flags=allow-oom
-- admin_mend: give each of these jobs the one place it was judged to have, if nothing has changed since the look.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta wake stats watched cancels progress lingering ties
-- ARGV[1] layout  [2..] for each: id, the seat it was judged by (its values joined by '|'),
--   home: held | suspects | ready | priority | delayed | group | parked | waiting | done | dead | none, and what the home needs:
--   held: the session; done and dead: how long to keep it (ms)
-- returns how many were mended
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: kept
-- include: seat
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local now_ms = now()

local function keep_one(key, id, count, is_home)
  if is_home and count == 0 then redis.call('RPUSH', key, id) end
  if is_home and count > 1 then redis.call('LREM', key, 1 - count, id) end -- the first one stays
  if not is_home and count > 0 then redis.call('LREM', key, 0, id) end
end

local function put(id, seat, home, need)
  local record = redis.call('HGET', q.jobs, id)
  keep_one(q.ready, id, seat[2], home == 'ready')
  keep_one(q.suspects, id, seat[5], home == 'suspects')
  for _, name in ipairs({'priority', 'delayed', 'done', 'dead'}) do
    if name ~= home then redis.call('ZREM', q[name], id) end
  end
  if home == 'priority' then
    local level = math.floor((tonumber(seat[3]) or 0) / LEVEL)
    local stands = ageing_of(q) and seat[3] ~= '' or level == 100 - priority_of(record)
    if not stands then put_back(q, {id}, {record}) end
  elseif home == 'done' or home == 'dead' then
    redis.call('ZADD', q[home], 'NX', now_ms + need, id)
  end
  for session in string.gmatch(seat[8], '[^%z]+') do
    if home ~= 'held' or session ~= need then redis.call('SREM', base_of(q) .. 'held:' .. session, id) end
  end
  redis.call('SREM', q.lingering, id)
  local ties = ties_of(q, id)
  if ties and home ~= 'parked' and home ~= 'waiting' then take_out(q, id, ties) end
  if home == 'group' then put_back(q, {id}, {record}) end
  if ties and (not record or state_of(record) ~= LIVE) then untie(q, id, ties) end
  return record
end

-- What is kept beside a job: for a live one made whole, for another dropped.
local function beside(id, seat, home, record)
  if home == 'done' or home == 'dead' or home == 'none' then
    tell(q, id, seat[11] .. ' c p', record or '')
    redis.call('HDEL', q.crashes, id)
    if home == 'none' then forget_kept(q, {id}) end
    return
  end
  if home == 'suspects' then redis.call('HSETNX', q.crashes, id, 0) end
  if home ~= 'held' and home ~= 'suspects' then redis.call('HDEL', q.crashes, id) end
  local tokens = seat[11]
  if seat[10] == 1 and not string.find(tokens, '%f[%w]c%f[%W]') then tokens = tokens .. ' c' end
  if seat[12] == 1 and not string.find(tokens, '%f[%w]p%f[%W]') then tokens = tokens .. ' p' end
  if seat[18] == 1 and not string.find(tokens, '%f[%w]k%f[%W]') then tokens = tokens .. ' k' end
  if tokens ~= seat[11] then redis.call('HSET', q.watched, id, tokens) end
end

local mended = 0
for at = 2, #ARGV, 4 do
  local id, home = ARGV[at], ARGV[at + 2]
  local seat = seat_of(q, id)
  if table.concat(seat, '|') == ARGV[at + 1] then
    beside(id, seat, home, put(id, seat, home, ARGV[at + 3]))
    mended = mended + 1
  end
end
if mended > 0 then ring(q) end
return mended
