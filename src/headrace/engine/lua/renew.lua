#!lua flags=allow-oom
-- renew: put off the lease end of sessions that are there; never bring one back.
-- keys: sessions cancels
-- ARGV[1] layout  [2] lease ms  [3..] sessions
-- returns {sessions that are gone, {{queue number, ids asked to be cancelled}, …}, server ms}
-- include: record
local now_ms = now()
local gone, cancels = {}, {}
for n = 1, #KEYS / KEYS_PER_QUEUE do
  local q = queue_at(n)
  if #ARGV > 2 then
    local ends = redis.call('ZMSCORE', q.sessions, unpack(ARGV, 3))
    for i = 1, #ends do
      if ends[i] then
        redis.call('ZADD', q.sessions, 'XX', now_ms + ARGV[2], ARGV[i + 2])
      else
        gone[#gone + 1] = ARGV[i + 2]
      end
    end
  end
  local asked = redis.call('SRANDMEMBER', q.cancels, 256)
  if #asked > 0 then cancels[#cancels + 1] = {n, asked} end
end
return {gone, cancels, now_ms}
