-- Writes nothing, but is refused wherever an acquire would be: on a replica, without memory, disk, replicas or rights.
--
-- KEYS  1 lock    2 fence    3 history    4 queue    5 asks
-- ARGV  1 restart grace ms; left out where there is none
-- Replies: 1 and the server's time in µs; NOPERM where the user lacks a command that the scripts run
local commands = {
  get = {}, set = {''}, del = {}, exists = {}, pttl = {}, pexpire = {'1'}, type = {},
  zadd = {'1', ''}, zrem = {''}, zrange = {'0', '0'}, hset = {'', ''}, hget = {''}, hdel = {''},
}
for name, arguments in pairs(commands) do
  for _, key in ipairs(KEYS) do
    if not redis.acl_check_cmd(name, key, unpack(arguments)) then
      return redis.error_reply('NOPERM this user may not run ' .. name .. ' on the keys of the locks')
    end
  end
end
if ARGV[1] and not redis.acl_check_cmd('info', 'server') then
  return redis.error_reply('NOPERM this user may not run info, without which there is no restart grace')
end
local time = redis.call('TIME')
return {1, time[1] * 1000000 + time[2]}
