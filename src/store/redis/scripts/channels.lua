#!lua flags=no-writes
-- Finds out whether the user may say and hear what happens, without doing either.
--
-- ARGV  1 channel of a tag's events    2 channel of a process's grants    3 pattern of all events
-- Replies: the first command that the user may not run on them; or an empty string
local wanted = {
  {'publish', ARGV[1], ''}, {'publish', ARGV[2], ''},
  {'subscribe', ARGV[1]}, {'subscribe', ARGV[2]}, {'psubscribe', ARGV[3]},
  {'unsubscribe', ARGV[1]}, {'punsubscribe', ARGV[3]},
}
for _, command in ipairs(wanted) do
  if not redis.acl_check_cmd(unpack(command)) then
    return command[1]
  end
end
return ''
