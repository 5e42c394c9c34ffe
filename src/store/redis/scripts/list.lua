-- Looks at one page of the key space for locks. For one standalone server: it reads keys that it does not declare.
--
-- ARGV  1 cursor   2 pattern   3 keys to look at
-- Replies: cursor now key pttl value key pttl value …; the cursor 0 ends the walk
local time = redis.call('TIME')
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3], 'TYPE', 'string')
local reply = {page[1], time[1] * 1000000 + time[2]}
for _, key in ipairs(page[2]) do
  local value = redis.call('GET', key)
  if value then
    reply[#reply + 1] = key
    reply[#reply + 1] = redis.call('PTTL', key)
    reply[#reply + 1] = value
  end
end
return reply
