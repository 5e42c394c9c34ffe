#!lua flags=no-writes,allow-stale
-- Says what the user may run, without running it.
--
-- ARGV  commands, each with its arguments, between spaces
-- Replies: for each 1, or 0 where the user may not run it or the server does not know it
local replies = {}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do words[#words + 1] = word end
  local is_known, may_run = pcall(redis.acl_check_cmd, unpack(words))
  replies[#replies + 1] = is_known and may_run and 1 or 0
end
return replies
