-- What becomes of the jobs of a session whose holder is gone.
local MAX_CRASHES = 3

-- A suspect is claimed alone from now on. `charge`: this death was its doing; the third ends it.
local function suspect(q, id, record, charge, reason, now_ms)
  if is_cancel_asked(q, id) then
    redis.call('HDEL', q.crashes, id)
    finish(q, id, with_state(record, CANCELLED), q.done, now_ms + DAY_MS, 'cancelled')
    return 'cancelled'
  end
  local crashes = redis.call('HINCRBY', q.crashes, id, charge and 1 or 0)
  if charge then redis.call('HINCRBY', q.stats, 'crashed', 1) end
  if crashes >= MAX_CRASHES then
    redis.call('HDEL', q.crashes, id)
    local ended = with_reason(with_state(record, FAILED), reason)
    finish(q, id, ended, q.dead, now_ms + 30 * DAY_MS, 'failed')
    if is_indexed(q) then index_again(q, {id}, {ended}) end
    return 'failed'
  end
  redis.call('RPUSH', q.suspects, id)
  return 'suspect'
end
