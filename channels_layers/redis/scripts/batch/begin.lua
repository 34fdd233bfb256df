-- Everything that one client asks of one shard, in batches; each batch is done once.
--
-- ARGV: base, client, number, era, ttl, expiry, the number of the first batch since the client came,
-- 1 where all of it makes room or needs none, then operations: a name, the number of its arguments,
-- and these. All times are milliseconds, and the server's.
--
-- Returns {'ok', now, changes, results}, with one result for each operation, {'!', why} if it failed;
-- {'era', id} where the server does not know the caller's era, or the caller any more: nothing was done;
-- {'stale'} where a later batch of this client was done: nothing was done now.
--
-- Keys, all of which begin with the base; GEN is raised by each flush:
--   era                hash    id: another one when the server forgot; run: the server's; changes: how
--                              many batches; base: how many when the server began; flush: the last
--                              one's id; gen, version, turn
--   lane:CLIENT        hash    number and results of the last batch
--   in:CLIENT          stream  what came for a client, on its home shard
--   sub:CLIENT         stream  messages of normal channels given to a client, not confirmed yet
--   hand:CLIENT        hash    the same, where they were taken by a call
--   acc:CLIENT         hash    channel -> unread messages; "" -> unread bytes in the stream
--   beats, stats, seen hash    CLIENT -> how often it has shown life; its numbers; the last flush
--   topology           string  the fingerprint of the set of shards
--   q:GEN:CHANNEL      list    messages of a channel that no client owns: "EXPIRES TURN PAYLOAD"
--   orphans:CLIENT     hash    channel -> account, of queues for a client that is not known
--   fam:GEN:NAME!      zset    its channels with messages, by the turn of the oldest
--   w:NAME             zset    clients that want messages of a channel or "NAME!", by turn
--   want:CLIENT        hash    NAME -> how many it wants
--   g:GEN:GROUP        zset    members, until when; above OWNED: those of live clients
--   go:GEN:GROUP       hash    CLIENT -> how many members it has
--   m:GEN:CLIENT       set     "GROUP CHANNEL" of a client's members
--   rq:GEN, rg:GEN     set     channels and groups that there are
--   tally, tally:CHANNEL hash  counters, of all queues and of one channel; the first also of clients
--                              that have left
--   was:CLIENT         string  its numbers that were added there, in case that it comes back

-- This is one script in several files, in the order begin, messages, queues, groups, house, end. A
-- function costs a third of a microsecond to make, so most of them are made when they are needed.

local call = redis.call
local base, me, number, known_era = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local TTL, EXPIRY = tonumber(ARGV[5]), tonumber(ARGV[6])
local SLICE = 256 -- things removed at once, so that others get their turn

local clock = call('TIME')
local second = tonumber(clock[1])
local now = second * 1000 + math.floor(clock[2] / 1000)
local era_key = base .. 'era'
local era = call('HMGET', era_key, 'id', 'gen')
if era[1] ~= known_era then
  return {'era', era[1] or ''}
end
local gen = era[2]
local lane = base .. 'lane:' .. me
local last = call('HGET', lane, 'number')
if last and tonumber(last) >= number then
  if tonumber(last) == number then
    return cmsgpack.unpack(call('HGET', lane, 'results'))
  end
  return {'stale'}
end
if not last and number > tonumber(ARGV[7]) then
  -- It was forgotten; or this comes late, over a connection that it has given up since.
  return {'era', era[1]}
end
if ARGV[8] == '1' then
  call('PEXPIRE', era_key, TTL) -- a full server refuses this not, and nothing after the first write
end
local changes = call('HINCRBY', era_key, 'changes', 1)
local is_leaving = false -- the caller is forgotten, and so is its lane

local function key(kind, name)
  return base .. kind .. name
end

local function text(value)
  return string.format('%.0f', value)
end

local function last_longer(name, ms)
  if call('PTTL', name) < ms then
    call('PEXPIRE', name, text(ms))
  end
end

-- What happened to channels, written in the end; "" is all of them: channel -> counter -> how often.
local counts

local function count(channel, field, by)
  counts = counts or {}
  for _, name in ipairs(channel == '' and {''} or {'', channel}) do
    local fields = counts[name] or {}
    counts[name] = fields
    fields[field] = (fields[field] or 0) + by
  end
end

local operations = {}
