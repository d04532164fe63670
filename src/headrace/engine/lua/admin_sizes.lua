#!lua flags=allow-oom
-- admin_sizes: the sizes of these sets of held ids. Changes nothing.
-- ARGV[1] layout     KEYS: the held sets
local sizes = {}
for n = 1, #KEYS do sizes[n] = redis.call('SCARD', KEYS[n]) end
return sizes
