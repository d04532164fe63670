-- What a job leaves beside its record for others to read, while it runs and as long as its record is kept: stream:ID, the items it
-- yielded, and lines:ID, what it said, both Redis streams; and notes:ID, a hash of what anybody says of it. `kept`: hash of the ids
-- that have one -> the fence of the last run that wrote (0: none did), so that who forgets jobs finds them, and a run that was taken over is refused. In `watched`: k, there is something to forget where no record stays; s and l, somebody reads the stream or
-- the lines along, and must be told of the end.

local function add_token(q, id, token)
  local tokens = redis.call('HGET', q.watched, id)
  if not tokens then
    redis.call('HSET', q.watched, id, token)
  elseif not string.find(tokens, '%f[%w]' .. token .. '%f[%W]') then
    redis.call('HSET', q.watched, id, tokens .. ' ' .. token)
  end
end

-- Whether one of these sessions holds the job: a consumer's own, and the one that may have adopted it a moment ago.
local function is_held_by(q, id, session, next_session)
  local held = key_of(q, 'held:')
  return redis.call('SISMEMBER', held .. session, id) == 1 or redis.call('SISMEMBER', held .. next_session, id) == 1
end

local function delete_kept(q, id)
  redis.call('DEL', key_of(q, 'stream:' .. id), key_of(q, 'lines:' .. id), key_of(q, 'notes:' .. id))
end

-- The first that is kept of a job: what an earlier one of this id may have left is none of it.
local function begin_kept(q, id, fence, is_live)
  if redis.call('HSETNX', key_of(q, 'kept'), id, fence) == 0 then return end
  if is_live then add_token(q, id, 'k') end
  delete_kept(q, id)
end

-- Whether a run may write: it holds the job, and no later one has written.
local function may_write(q, id, session, next_session, fence)
  if not is_held_by(q, id, session, next_session) then return false end
  local last = redis.call('HGET', key_of(q, 'kept'), id)
  if last == fence then return true end
  if last and tonumber(last) > tonumber(fence) then return false end
  begin_kept(q, id, fence, true)
  if last then redis.call('HSET', key_of(q, 'kept'), id, fence) end
  return true
end

-- These jobs' records go.
local function forget_kept(q, ids)
  local kept = key_of(q, 'kept')
  if #ids == 0 or redis.call('EXISTS', kept) == 0 then return end
  local flags = redis.call('HMGET', kept, unpack(ids))
  for i = 1, #ids do
    if flags[i] then
      delete_kept(q, ids[i])
      redis.call('HDEL', kept, ids[i])
    end
  end
end
