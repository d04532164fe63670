#!lua flags=allow-oom
-- holder: which of these sets of held ids has this job. Changes nothing.
-- ARGV[1] layout  [2] job id     KEYS: the held sets to look in
-- returns the number of the set, or 0
for n = 1, #KEYS do
  if redis.call('SISMEMBER', KEYS[n], ARGV[2]) == 1 then return n end
end
return 0
