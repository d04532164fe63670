#!lua flags=allow-oom
-- index_look: which of these jobs are not found by just what their records say. Changes nothing.
-- keys: jobs
-- ARGV[1] layout  [2..] ids
-- returns ids
-- include: ties
-- include: index
local q = queue_at(1)
local wrong = {}
for i = 2, #ARGV do
  local id, record = ARGV[i], redis.call('HGET', q.jobs, ARGV[i])
  local kept = redis.call('HGET', key_of(q, 'index'), id)
  local terms, created = {}, 0
  if record then terms, created = terms_of(record) end
  local is_right = (kept or '') == table.concat(terms, '\0')
  for _, term in ipairs(terms) do
    is_right = is_right and tonumber(redis.call('ZSCORE', key_of(q, 'index:' .. term), id) or '') == created and redis.call('ZSCORE', key_of(q, 'terms'), term)
  end
  if not is_right then wrong[#wrong + 1] = id end
end
return wrong
