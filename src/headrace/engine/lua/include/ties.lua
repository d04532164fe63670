-- What hangs on a job beside its record. `ties` has an entry for each live job that has any, a msgpack map:
--   g group, w its weight   u unique key, s freed as the job starts, m kept for so long (ms)
--   l limits, each {n name, t its template, c most running, f a slot is kept until the job ends, r jobs per p ms, b burst, k cost}
--   p inputs it waits for, d ms to wait when it has them, i it reads inputs, e edges to those that wait for it, o those it waits for: include/edges.lua   x ms it waits at most
--   v it has a checkpoint, in saved:ID
-- The keys that only such jobs need are named after the queue's own, so they share its slot:
--   group:G list, groups zset (turns)   parked:L zset, parked zset (all of them), slots:L set, gates zset (L -> when to look again), rates hash
--   (L -> when its bucket is empty), holds zset (L -> shut until), limits hash (L -> what was set for it)
local function key_of(q, name)
  local base = q.base or string.sub(q.jobs, 1, -5)
  q.base = base
  return base .. name
end

-- Whether no limit holds anything back, is held, or was changed: then each need not be asked about. Asked once a script.
local function is_calm(q)
  if q.calm == nil then q.calm = redis.call('EXISTS', key_of(q, 'parked'), key_of(q, 'limits'), key_of(q, 'holds')) == 0 end
  return q.calm
end

-- What else is asked once a script: whether a key is there, and whether jobs stand before a limit.
local function is_there(q, name)
  q.there = q.there or {}
  if q.there[name] == nil then q.there[name] = redis.call('EXISTS', key_of(q, name)) == 1 end
  return q.there[name]
end

local function is_lined_up(q, limit) return not is_calm(q) and is_there(q, 'parked:' .. limit) end

-- On many jobs the same hangs: each wording is unpacked once. Who changes what was read writes it back.
local unpacked = {}
local function read_ties(packed)
  local found = unpacked[packed] or cmsgpack.unpack(packed)
  unpacked[packed] = found
  return found
end

-- Whether a claim must look at what hangs on jobs: `weighs` in meta, from the first job on of which it must until no job has ties.
local function weigh(q, ties)
  if q.weighs or not (ties.l or ties.s or ties.i or ties.v) then return end
  redis.call('HSET', q.meta, 'weighs', 1)
  q.weighs = true
end

local function ties_of(q, id)
  local found = redis.call('HGET', q.ties, id)
  return found and read_ties(found)
end

-- Those of several jobs, by number; nil when no job of the queue has any.
local function all_ties(q, ids)
  if #ids == 0 or redis.call('EXISTS', q.ties) == 0 then return nil end
  local found = redis.call('HMGET', q.ties, unpack(ids))
  for i = 1, #ids do found[i] = found[i] and read_ties(found[i]) end
  return found
end

-- Whether somebody reads what this job ended with.
local function has_reader(ties)
  for _, edge in ipairs(ties.e or {}) do
    if edge.r then return true end
  end
end

-- Stand before a limit, by score: priority, then arrival.
local function park_at(q, name, id, score)
  q.calm, q.there = false, nil
  redis.call('ZADD', key_of(q, 'parked:' .. name), score, id)
  redis.call('ZADD', key_of(q, 'parked'), score, id)
end

local function unpark(q, name, id)
  q.there = nil
  redis.call('ZREM', key_of(q, 'parked'), id)
  return redis.call('ZREM', key_of(q, 'parked:' .. name), id)
end

-- A group that has just got something to do stands beside the one that was served last.
local function turn_of(q)
  q.turn = q.turn or redis.call('HGET', q.meta, 'turn') or 0
  return q.turn
end

local function take_part(q, group, weight)
  redis.call('ZADD', key_of(q, 'groups'), 'NX', turn_of(q), group)
  if weight then redis.call('HSET', key_of(q, 'weights'), group, weight) end
end

-- What holds for a limit now: what was set for it by name, or for its template, or else what the job itself says.
local function rule_of(q, limit)
  if is_calm(q) or not is_there(q, 'limits') then return limit end
  local found = redis.call('HMGET', key_of(q, 'limits'), limit.n, limit.t)
  found = found[1] or found[2]
  return found and cmsgpack.unpack(found) or limit
end

-- The run of a job is over: its slots are free, but those that it keeps until it has ended. `is_unstarted`: it never ran, so
-- its share of the rates, and its unique key, come back too.
local function loosen(q, id, ties, is_unstarted, has_ended)
  if is_unstarted and ties.s then redis.call('HSETNX', key_of(q, 'unique'), ties.u, id) end
  for _, limit in ipairs(ties.l or {}) do
    if (has_ended or not limit.f) and (limit.c or not is_calm(q)) then redis.call('SREM', key_of(q, 'slots:' .. limit.n), id) end
    local rule = is_unstarted and rule_of(q, limit)
    local at = rule and rule.r and redis.call('HGET', key_of(q, 'rates'), limit.n)
    if at then redis.call('HSET', key_of(q, 'rates'), limit.n, string.format('%.3f', at - rule.p / rule.r * limit.k)) end
    -- Of a rate nothing comes back with an end.
    if is_lined_up(q, limit.n) and (limit.c or at or is_there(q, 'limits')) then
      redis.call('ZADD', key_of(q, 'gates'), 0, limit.n)
      redis.call('ZADD', key_of(q, 'wake'), 0, '1')
    end
  end
end

local function loosen_all(q, ids, is_unstarted)
  local ties = all_ties(q, ids)
  for i = 1, ties and #ids or 0 do
    if ties[i] then loosen(q, ids[i], ties[i], is_unstarted) end
  end
end

local ended_jobs = {} -- whose edges are still to be followed: see include/edges.lua

-- A job has ended, or is taken out (`record` nil): nothing of it stays but, for a while, the inputs of one that may come back.
-- `rest`: of jobs that ran, what can be done for all at once is left to `untie_rest`.
local function untie(q, id, ties, record, rest)
  if ties.l then loosen(q, id, ties, false, true) end
  if ties.e and record then ended_jobs[#ended_jobs + 1] = {id, ties, record} end
  if ties.p then
    if not rest then
      redis.call('HDEL', key_of(q, 'waiting'), id)
      redis.call('ZREM', key_of(q, 'timeouts'), id)
      redis.call('ZREM', key_of(q, 'linking'), id)
    end
    if record and state_of(record) ~= 6 then
      local keep_ms = state_of(record) == FAILED and 30 * DAY_MS or DAY_MS
      redis.call('PEXPIRE', key_of(q, 'inputs:' .. id), keep_ms)
      redis.call('PEXPIRE', key_of(q, 'expects:' .. id), keep_ms)
    elseif rest then
      rest.inputs[#rest.inputs + 1] = key_of(q, 'inputs:' .. id)
      rest.inputs[#rest.inputs + 1] = key_of(q, 'expects:' .. id)
    else
      redis.call('DEL', key_of(q, 'inputs:' .. id), key_of(q, 'expects:' .. id))
    end
  end
  if ties.v then
    local saved = key_of(q, 'saved:' .. id)
    -- Of a failed job, whoever retries it by hand goes on from there.
    if record and state_of(record) == FAILED then redis.call('PEXPIRE', saved, 30 * DAY_MS) else redis.call('DEL', saved) end
  end
  if rest then
    rest.n = rest.n + 1
    rest.ids[rest.n] = id
    if ties.u and not ties.m then rest.keys[#rest.keys + 1], rest.owners[#rest.keys + 1] = ties.u, id end
    return
  end
  if ties.u and not ties.m and redis.call('HGET', key_of(q, 'unique'), ties.u) == id then redis.call('HDEL', key_of(q, 'unique'), ties.u) end
  redis.call('HDEL', q.ties, id)
end

local function untie_rest(q, rest)
  if #rest.ids > 0 then redis.call('HDEL', q.ties, unpack(rest.ids)) end
  if #rest.inputs > 0 then redis.call('DEL', unpack(rest.inputs)) end
  if #rest.keys == 0 then return end
  local owners, free = redis.call('HMGET', key_of(q, 'unique'), unpack(rest.keys)), {}
  for i = 1, #rest.keys do
    if owners[i] == rest.owners[i] then free[#free + 1] = rest.keys[i] end
  end
  if #free > 0 then redis.call('HDEL', key_of(q, 'unique'), unpack(free)) end
end

-- Out of where a tied job waits beside the queue's own places; reads the whole list of its group. Returns 1 if it was there.
local function take_out(q, id, ties)
  local found = 0
  if ties.g then
    local lane = key_of(q, 'group:' .. ties.g)
    found = redis.call('LREM', lane, 0, id)
    if redis.call('EXISTS', lane) == 0 then redis.call('ZREM', key_of(q, 'groups'), ties.g) end
  end
  for _, limit in ipairs(ties.l or {}) do found = found + unpark(q, limit.n, id) end
  if ties.p then found = found + redis.call('HDEL', key_of(q, 'waiting'), id) end
  return found
end
