-- Ends the lease that a holder has, and remembers that this request did so. Where processes wait, the first gets the lock.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 request (9 characters)   2 kind|holder id|   3 lowest and 4 highest fence that this call may end
--       5 not_after: server time in µs after which nothing is done
--       6 events: the channel of the tag   7 history: "records ttl-ms" to keep, or nothing
-- Replies:
--       "NOWSINCE"               released: the server's time in µs and the start of the lease in ms, 16 and 13 digits
--       0 now                    too late
--       1 now                    this request had released it before
--       2 now last               nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value         held by another, in another way, or under a fence outside the bounds; or not a lock
-- The layout of both keys stands in acquire.lua. The fence key outlives the lock by its own ttl, which is left as it is.
if kept and kept >= ended then
  local before = sub(kept, 17)
  if string.byte(before) == 43 then
    local it, requests = tools(), sub(before, 2) .. ARGV[1]
    local process, ask = it.first()
    local granted = process and it.grant(process, ask, sub(kept, 1, 16), requests)
    if granted then
      said = said .. '\n' .. granted
    else
      call('DEL', KEYS[1])
      call('SET', KEYS[2], sub(kept, 1, 16) .. it.rest(requests), 'KEEPTTL')
    end
  else
    call('DEL', KEYS[1])
    call('SET', KEYS[2], kept .. (before == '' and '|' or '') .. ARGV[1], 'KEEPTTL')
  end
else
  call('DEL', KEYS[1])
  -- Somebody deleted or changed the counter: the lease has it, and a day is what it is kept by default.
  call('SET', KEYS[2], ended .. '|' .. ARGV[1], 'PX', 86400000)
end
redis.pcall('PUBLISH', ARGV[6], said)
if ARGV[7] ~= '' then tools().remember(said, ARGV[7]) end
return now .. since
