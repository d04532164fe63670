-- Claims from groups, which take turns.

-- One job of each group in turn; a group of weight 3 has three turns for one. Ungrouped jobs are a group of their own, ''.
-- Start-time fair queueing (Goyal, Vin, Cheng 1996) with the weight that a group's last job named. The turns are planned here, over
-- the groups that stand first, so that each list is asked and taken from once.
-- `pop`: where jobs without a group age, and stand in an order of their own, these are taken so.
local function take_turns(q, want, pop)
  local groups = key_of(q, 'groups')
  if redis.call('EXISTS', q.ready, pop and q.priority or q.ready) > 0 then take_part(q, '') end
  local first = redis.call('ZRANGE', groups, 0, want - 1, 'WITHSCORES')
  if #first == 0 then return {} end
  local names, line = {}, {}
  for n = 1, #first, 2 do names[#names + 1] = first[n] end
  local weights = redis.call('EXISTS', key_of(q, 'weights')) == 1 and redis.call('HMGET', key_of(q, 'weights'), unpack(names)) or {}
  for n, name in ipairs(names) do
    local lane = name == '' and q.ready or key_of(q, 'group:' .. name)
    line[n] = {name = name, at = tonumber(first[2 * n]), step = 1 / (weights[n] or 1), lane = lane, turns = {}}
  end
  local taken, head, asked = 0, 1, {} -- `line` is in order of `at` from `head` on
  while taken < want and line[head] do
    local group = line[head]
    if not group.left then
      group.left = redis.call('LLEN', group.lane) + (pop and group.name == '' and redis.call('ZCARD', q.priority) or 0)
      asked[#asked + 1] = group
    end
    head = head + 1
    if group.left > 0 then
      taken, q.turn = taken + 1, group.at
      group.turns[#group.turns + 1], group.left, group.at = taken, group.left - 1, group.at + group.step
      if group.left > 0 then
        local place = #line + 1
        while place > head and line[place - 1].at > group.at do place = place - 1 end
        table.insert(line, place, group)
      end
    end
  end
  local ids, later, empty = {}, {}, {}
  for _, group in ipairs(asked) do
    local count = #group.turns
    local some = count > 0 and (pop and group.name == '' and pop(q, count, true) or redis.call('LPOP', group.lane, count))
    for i, turn in ipairs(group.turns) do ids[turn] = some[i] end
    if group.left > 0 then
      later[#later + 1], later[#later + 2] = string.format('%.17g', group.at), group.name
    else
      empty[#empty + 1] = group.name
    end
  end
  if #later > 0 then redis.call('ZADD', groups, unpack(later)) end
  if #empty > 0 then redis.call('ZREM', groups, unpack(empty)) end
  if #ids > 0 then redis.call('HSET', q.meta, 'turn', string.format('%.17g', q.turn)) end
  return ids
end
