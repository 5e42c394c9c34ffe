#!lua flags=no-writes
-- Says who holds one tag.
--
-- KEYS  1 lock    2 fence
-- Replies, each with the server's time in µs second:
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value              held; or not a lock
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local value = redis.call('GET', KEYS[1])
if not value then
  return {2, now, tonumber(string.match(redis.call('GET', KEYS[2]) or '', '^%d+') or -1)}
end
return {3, now, redis.call('PTTL', KEYS[1]), value}
