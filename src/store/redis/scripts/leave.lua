-- Gives up the place of a process in the queue, and says whether the token for which it stood was granted the lock.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 token for which it stood in the queue   2 process   3 not_after: server time in µs after which nothing is done
-- Replies:
--       0 now                    too late
--       1 now pttl value         the token holds
--       2 now                    the token does not hold
if now > ARGV[3] then return {0, tonumber(now)} end
local it = tools()
local value, kept = call('GET', KEYS[1]), call('GET', KEYS[2])
it.forget(ARGV[2])
if kept then it.mark(kept, '') end
if value and sub(value, 3, 24) == ARGV[1] then return {1, tonumber(now), call('PTTL', KEYS[1]), value} end
return {2, tonumber(now)}
