#!lua
-- Writes nothing, but is refused wherever an acquire would be: on a replica, without memory, disk, replicas or rights.
--
-- KEYS  1 lock    2 fence
-- Replies: 1 and the server's time in µs; NOPERM where the user lacks a command that the scripts run
for _, name in ipairs({'get', 'set', 'del', 'pttl', 'pexpire', 'type'}) do
  for _, key in ipairs(KEYS) do
    local arguments = name == 'set' and {''} or name == 'pexpire' and {'1'} or {}
    if not redis.acl_check_cmd(name, key, unpack(arguments)) then
      return redis.error_reply('NOPERM this user may not run ' .. name .. ' on the keys of the locks')
    end
  end
end
local time = redis.call('TIME')
return {1, time[1] * 1000000 + time[2]}
