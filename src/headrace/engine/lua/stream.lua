#!lua flags=allow-oom
-- stream: keep the items a running job has yielded, each once: item i is entry i+1 of its stream, whichever run sent it.
-- keys: jobs watched
-- ARGV[1] layout  [2] job id  [3] session  [4] its next name, which it has if it was adopted just now  [5] fence
--   [6] most items kept  [7] index of the first  [8..] items
-- returns 1, or 0 when the job is not this session's any more (nothing was written)
-- include: record
-- include: ties
-- include: kept
local q = queue_at(1)
local id, first = ARGV[2], tonumber(ARGV[7])
if not may_write(q, id, ARGV[3], ARGV[4], ARGV[5]) then return 0 end
local key = key_of(q, 'stream:' .. id)
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local count = last and tonumber(string.match(last[1], '^%d+')) or 0
for i = 8, #ARGV do
  local number = first + i - 7
  if number > count then redis.call('XADD', key, string.format('%.0f-0', number), 'v', ARGV[i]) end
end
redis.call('XTRIM', key, 'MAXLEN', ARGV[6])
return 1
