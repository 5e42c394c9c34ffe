-- Says who holds one tag.
--
-- KEYS  1 lock    2 fence
-- Replies, each with the server's time in µs second:
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value              held; or not a lock
local value = call('GET', KEYS[1])
if not value then
  return {2, tonumber(now), tonumber(string.match(call('GET', KEYS[2]) or '', '^%d+') or -1)}
end
return {3, tonumber(now), call('PTTL', KEYS[1]), value}
