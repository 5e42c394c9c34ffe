#!lua
-- Writes nothing, but is refused wherever an acquire would be: on a replica, without memory, disk, replicas or rights.
--
-- KEYS  1 lock    2 fence
-- Replies: 1 and the server's time in µs
local time = redis.call('TIME')
redis.call('EXISTS', KEYS[1], KEYS[2])
return {1, time[1] * 1000000 + time[2]}
