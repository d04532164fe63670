-- renew: hold the lock for its full time again, or give it up.
-- KEYS[1] lock   ARGV[1] token  [2] lock ms  [3] 'end': give it up
-- returns 1; or the error LOST
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('LOST another run has taken over') end
if ARGV[3] == 'end' then redis.call('DEL', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
