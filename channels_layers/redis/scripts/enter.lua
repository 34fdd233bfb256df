-- A client comes to one shard, or comes back to it; may be repeated.
--
-- ARGV: base, client, a random id, the server's run id, the era that it knows or "", how many
-- changes it has seen there, 1 if that was in another run of the server, 1 at home, its last
-- position in its inbox or "", fingerprint of the set of shards or "", ttl in milliseconds.
--
-- Returns {state, era, changes, now, generation, position}, where the state is
--   known      everything is as it was
--   new        it is not known here, and has nothing here
--   met        the same, but for what others have told of it
--   forgot     the era that it knows is over: the server lost everything, or a part
--   rewound    the server went back in time; the caller begins another era
--   swept      others took it for dead
-- or {'topology', fingerprint} where the clients that live use another set of shards.

local call = redis.call
local base, me, token, run, known_era = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local known_changes, is_other_run, at_home = tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1'
local position, fingerprint, ttl = ARGV[9], ARGV[10], ARGV[11]
local clock = call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local era_key, beats, topology = base .. 'era', base .. 'beats', base .. 'topology'
call('PEXPIRE', era_key, ttl) -- a full server refuses this not, and nothing after the first write

if fingerprint ~= '' then
  local others = call('HLEN', beats) - call('HEXISTS', beats, me)
  local theirs = call('GET', topology)
  if theirs and theirs ~= fingerprint and others > 0 then
    return {'topology', theirs}
  end
  call('SET', topology, fingerprint, 'PX', ttl)
end

local era = call('HMGET', era_key, 'id', 'run', 'changes', 'base')
local state = 'known'
if not era[1] then
  -- A generation that no earlier era can have had.
  call('HSET', era_key, 'id', token, 'run', run, 'changes', 0, 'base', 0, 'gen', now)
  era = {token, run, '0', '0'}
  state = known_era == '' and 'new' or 'forgot'
else
  if era[2] ~= run then
    era[4] = era[3]
    call('HSET', era_key, 'run', run, 'base', era[3])
  end
  if known_era == '' then
    state = 'new'
  elseif known_era ~= era[1] then
    state = 'forgot'
  elseif is_other_run and tonumber(era[4]) < known_changes then
    call('HSET', era_key, 'id', token)
    era[1] = token
    state = 'rewound'
  end
end
call('PEXPIRE', era_key, ttl)

local inbox = base .. 'in:' .. me
if state == 'known' and (call('HEXISTS', beats, me) == 0 or (at_home and call('EXISTS', inbox) == 0)) then
  state = 'swept'
end
if state ~= 'known' then
  call('UNLINK', base .. 'acc:' .. me)
end
if call('HSETNX', beats, me, '0') == 0 and state == 'new' then
  state = 'met'
end
call('PEXPIRE', beats, ttl)

local function is_before(a, b)
  local a_ms, a_n = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_n = string.match(b, '(%d+)-(%d+)')
  return tonumber(a_ms) < tonumber(b_ms) or (a_ms == b_ms and tonumber(a_n) < tonumber(b_n))
end

-- Move what was sent to the caller while it was not known from queues to its inbox, in order.
local function take_orphans()
  local gen = call('HGET', era_key, 'gen')
  local orphans = call('HGETALL', base .. 'orphans:' .. me)
  local found = {}
  for at = 1, #orphans, 2 do
    local channel, account = orphans[at], orphans[at + 1]
    local queue = base .. 'q:' .. gen .. ':' .. channel
    for _, entry in ipairs(call('LRANGE', queue, 0, -1)) do
      local expires, order, start = string.match(entry, '^(%d+) (%d+) ()')
      found[#found + 1] = {tonumber(order), channel, account, expires, string.sub(entry, start)}
    end
    call('UNLINK', queue)
    call('SREM', base .. 'rq:' .. gen, channel)
    call('UNLINK', base .. 'fam:' .. gen .. ':' .. string.match(channel, '^[^!]*!'))
  end
  call('UNLINK', base .. 'orphans:' .. me)
  table.sort(found, function(a, b) return a[1] < b[1] end)
  for _, message in ipairs(found) do
    local _, channel, account, expires, payload = unpack(message)
    if state ~= 'rewound' and tonumber(expires) > tonumber(now) then
      call('XADD', inbox, '*', 'M ' .. channel .. ' ' .. expires .. ' ' .. gen, payload)
      call('HINCRBY', base .. 'acc:' .. me, account, 1)
      call('HINCRBY', base .. 'acc:' .. me, '', #payload)
    end
  end
end

if at_home then
  if call('EXISTS', inbox) == 0 then
    local id = call('XADD', inbox, '*', 'W', '')
    if position == '' then
      position = id
    end
  end
  if position == '' then
    position = '0-0'
  end
  -- What comes next must come after what was read, whatever the server's clock says.
  local newest = call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)
  if not newest[1] or is_before(newest[1][1], position) then
    call('XSETID', inbox, position)
  end
  call('PEXPIRE', inbox, ttl)
  take_orphans()
end
return {state, era[1], era[3], now, call('HGET', era_key, 'gen'), position}
