-- What was said of grants and their ends, newest first; see acquire.lua.
--
-- KEYS  1 history
-- Replies: the messages
return redis.call('LRANGE', KEYS[1], 0, -1)
