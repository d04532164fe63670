-- What a job leaves beside its record for others to read, while it runs and as long as its record is kept: stream:ID, the items it
-- yielded, and lines:ID, what it said. Both are Redis streams. `kept`: hash of the ids that have one -> the
-- fence of the last run that wrote, so that who forgets jobs finds them, and a run that was taken over is refused. In `watched`: k, there is something to forget where no record stays; s and l, somebody reads the stream or
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

-- Whether a run may write: it holds the job, and no later one has written. What an earlier job of this id may have left is none of
-- this one's.
local function may_write(q, id, session, next_session, fence)
  if not is_held_by(q, id, session, next_session) then return false end
  local last = redis.call('HGET', key_of(q, 'kept'), id)
  if last == fence then return true end
  if last and tonumber(last) > tonumber(fence) then return false end
  redis.call('HSET', key_of(q, 'kept'), id, fence)
  if not last then
    add_token(q, id, 'k')
    redis.call('DEL', key_of(q, 'stream:' .. id), key_of(q, 'lines:' .. id))
  end
  return true
end

-- These jobs' records go.
local function forget_kept(q, ids)
  local kept = key_of(q, 'kept')
  if #ids == 0 or redis.call('EXISTS', kept) == 0 then return end
  local flags = redis.call('HMGET', kept, unpack(ids))
  for i = 1, #ids do
    if flags[i] then
      redis.call('DEL', key_of(q, 'stream:' .. ids[i]), key_of(q, 'lines:' .. ids[i]))
      redis.call('HDEL', kept, ids[i])
    end
  end
end
