#!lua flags=allow-oom
-- lines: keep what a running job has said: of each run the last lines, of the last runs. A run's entries begin with its fence.
-- keys: jobs watched
-- ARGV[1] layout  [2] job id  [3] session  [4] its next name, which it has if it was adopted just now  [5] fence  [6] attempt
--   [7] most lines a run  [8] most bytes a run  [9] most runs  [10..] unix ms, line ...
-- returns 1, or 0 when the job is not this session's any more (nothing was written)
-- include: record
-- include: ties
-- include: kept
local q = queue_at(1)
local id, fence = ARGV[2], ARGV[5]
if not may_write(q, id, ARGV[3], ARGV[4], ARGV[5]) then return 0 end
local key = key_of(q, 'lines:' .. id)
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if last and string.match(last[1], '^%d+') ~= fence then
  -- A run's first lines: the oldest runs make room.
  local runs, seen = {}, nil
  for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
    local run = string.match(entry[1], '^%d+')
    if run ~= seen then runs[#runs + 1], seen = run, run end
  end
  local over = #runs + 1 - tonumber(ARGV[9])
  if over > 0 then redis.call('XTRIM', key, 'MINID', runs[over + 1] or fence) end
end
for i = 10, #ARGV, 2 do redis.call('XADD', key, fence .. '-*', 't', ARGV[i], 'a', ARGV[6], 'l', ARGV[i + 1]) end
local entries, bytes, gone = redis.call('XREVRANGE', key, fence, fence), 0, {}
for i = 1, #entries do
  bytes = bytes + #(entries[i][2][6] or '')
  if i > tonumber(ARGV[7]) or (bytes > tonumber(ARGV[8]) and i > 1) then gone[#gone + 1] = entries[i][1] end
end
if #gone > 0 then redis.call('XDEL', key, unpack(gone)) end
return 1
