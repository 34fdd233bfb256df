-- Everything that one client asks of one shard, in batches; each batch is done once.
--
-- ARGV: base, client, number, era, ttl, expiry, then operations: a name, the number of its
-- arguments, and these. All times are milliseconds, and the server's.
--
-- Returns {'ok', now, changes, results}, with one result for each operation, {'!', why} if it failed;
-- {'era', id} where the server does not know the caller's era: nothing was done;
-- {'stale'} where a later batch of this client was done: nothing was done now.
--
-- Keys, all of which begin with the base; GEN is raised by each flush:
--   era                hash    id: another one when the server forgot; run: the server's; changes: how
--                              many batches; base: how many when the server began; gen, version, turn
--   lane:CLIENT        hash    number and results of the last batch
--   in:CLIENT          stream  what came for a client, on its home shard
--   sub:CLIENT         stream  messages of normal channels given to a client, not confirmed yet
--   hand:CLIENT        hash    the same, where they were taken by a call
--   acc:CLIENT         hash    channel -> unread messages; "" -> unread bytes in the stream
--   beats, stats, seen hash    CLIENT -> how often it has shown life; its numbers; the last flush
--   topology           string  the fingerprint of the set of shards
--   q:GEN:CHANNEL      list    messages of a channel that no client owns: "EXPIRES TURN PAYLOAD"
--   fam:GEN:NAME!      zset    its channels with messages, by the turn of the oldest
--   w:NAME             zset    clients that want messages of a channel or "NAME!", by turn
--   want:CLIENT        hash    NAME -> how many it wants
--   g:GEN:GROUP        zset    members, until when; OWNED: those of live clients
--   go:GEN:GROUP       hash    CLIENT -> how many members it has
--   m:GEN:CLIENT       set     "GROUP CHANNEL" of a client's members
--   rq:GEN, rg:GEN     set     channels and groups that there are
--   tally, tally:CHANNEL hash  counters, of all queues and of one channel

local call = redis.call
local base, me, number, known_era = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local TTL, EXPIRY = tonumber(ARGV[5]), tonumber(ARGV[6])
local OWNED = 9000000000000000 -- later than any time
local INBOX_BYTES = 67108864 -- unread bytes for one client, at which its inbox is full
local SLICE = 256 -- things removed at once, so that others get their turn

local function key(kind, name)
  return base .. kind .. name
end

local clock = call('TIME')
local second = tonumber(clock[1])
local now = second * 1000 + math.floor(clock[2] / 1000)
local era_key = base .. 'era'
local era = call('HMGET', era_key, 'id', 'gen')
if era[1] ~= known_era then
  return {'era', era[1] or ''}
end
local gen = era[2]
local lane = key('lane:', me)
local last = call('HMGET', lane, 'number', 'results')
if last[1] and tonumber(last[1]) >= number then
  if tonumber(last[1]) == number then
    return cmsgpack.unpack(last[2])
  end
  return {'stale'}
end
local changes = call('HINCRBY', era_key, 'changes', 1)
local is_leaving = false -- the caller is forgotten, and so is its lane

local function text(value)
  return string.format('%.0f', value)
end

local function turn()
  return call('HINCRBY', era_key, 'turn', 1)
end

local function last_longer(name, ms)
  if call('PTTL', name) < ms then
    call('PEXPIRE', name, text(ms))
  end
end

local function family(channel)
  local mark = string.find(channel, '!', 1, true)
  return mark and string.sub(channel, 1, mark)
end

-- Counters: `counts[channel][field]` during the batch, written at its end. "" is all channels.

local counts = {}

local function count(channel, field, by)
  for _, name in ipairs({'', channel}) do
    local fields = counts[name] or {}
    counts[name] = fields
    fields[field] = (fields[field] or 0) + by
  end
end

-- In this second, and in the one before it; for the rates.
local function count_in_second(tally, field, by)
  local had = call('HMGET', tally, field .. 's', field .. 'n')
  if had[1] and tonumber(had[1]) == second then
    call('HINCRBY', tally, field .. 'n', by)
  else
    local before = had[1] and tonumber(had[1]) == second - 1 and had[2] or 0
    call('HSET', tally, field .. 's', second, field .. 'n', by, field .. 'p', before)
  end
end

local function write_counts()
  for name, fields in pairs(counts) do
    local tally = name == '' and base .. 'tally' or key('tally:', name)
    for field, by in pairs(fields) do
      call('HINCRBY', tally, field, by)
      if field == 'accepted' or field == 'refused' then
        count_in_second(tally, field, by)
      end
    end
    last_longer(tally, TTL)
  end
end

-- Queues; made when they are first needed, since making a function takes half a microsecond.
local queue_of, entry_of, parse, note_head, length_of, pop, put, next_waiter, label, give,
  hand_out, push, put_back, parse_label, drop_in_hand, return_in_hand

local function load_queues()
  if queue_of then
    return
  end

  function queue_of(channel)
    return base .. 'q:' .. gen .. ':' .. channel
  end

  function entry_of(expires, order, payload)
    return text(expires) .. ' ' .. text(order) .. ' ' .. payload
  end

  function parse(entry)
    local first = string.find(entry, ' ', 1, true)
    local second_space = string.find(entry, ' ', first + 1, true)
    local expires = tonumber(string.sub(entry, 1, first - 1))
    local order = tonumber(string.sub(entry, first + 1, second_space - 1))
    return expires, order, string.sub(entry, second_space + 1)
  end

  function note_head(channel, queue)
    local name = family(channel)
    if name then
      local head = call('LINDEX', queue, 0)
      local index = base .. 'fam:' .. gen .. ':' .. name
      if head then
        local _, order = parse(head)
        call('ZADD', index, order, channel)
        last_longer(index, EXPIRY + 1000)
      else
        call('ZREM', index, channel)
      end
    end
  end

  -- Drop what has expired at the head, and return the length.
  function length_of(channel, queue)
    local length = call('LLEN', queue)
    local dropped = 0
    while length > 0 do
      local expires = parse(call('LINDEX', queue, 0))
      if expires > now then
        break
      end
      call('LPOP', queue)
      length = length - 1
      dropped = dropped + 1
    end
    if dropped > 0 then
      count(channel, 'expired', dropped)
      note_head(channel, queue)
      if length == 0 then
        call('SREM', base .. 'rq:' .. gen, channel)
      end
    end
    return length
  end

  function pop(channel)
    local queue = queue_of(channel)
    if length_of(channel, queue) == 0 then
      return nil
    end
    local expires, order, payload = parse(call('LPOP', queue))
    note_head(channel, queue)
    if call('EXISTS', queue) == 0 then
      call('SREM', base .. 'rq:' .. gen, channel)
    end
    return expires, order, payload
  end

  function put(channel, side, expires, order, payload)
    local queue = queue_of(channel)
    if call(side, queue, entry_of(expires, order, payload)) == 1 then
      local registry = base .. 'rq:' .. gen
      call('SADD', registry, channel)
      last_longer(registry, expires - now + 1000)
    end
    last_longer(queue, expires - now + 1000)
    if side == 'LPUSH' or call('LLEN', queue) == 1 then
      note_head(channel, queue)
    end
  end

  -- Return the client that has waited longest for `channel`, which wants one message less now.
  function next_waiter(channel)
    while true do
      local best, who, where
      for _, name in ipairs({channel, family(channel) or nil}) do
        local first = call('ZRANGE', key('w:', name), 0, 0, 'WITHSCORES')
        if first[1] and (not best or tonumber(first[2]) < best) then
          best, who, where = tonumber(first[2]), first[1], name
        end
      end
      if not who then
        return nil
      end
      local wanted = key('want:', who)
      if call('HEXISTS', base .. 'beats', who) == 1 and call('HEXISTS', wanted, where) == 1 then
        if call('HINCRBY', wanted, where, -1) > 0 then
          call('ZADD', key('w:', where), turn(), who)
        else
          call('HDEL', wanted, where)
          call('ZREM', key('w:', where), who)
        end
        return who
      end
      call('ZREM', key('w:', where), who)
      call('HDEL', wanted, where)
    end
  end

  function label(channel, expires, order)
    return channel .. ' ' .. text(expires) .. ' ' .. text(order) .. ' ' .. gen
  end

  function give(client, channel, expires, order, payload)
    local stream = key('sub:', client)
    call('XADD', stream, '*', label(channel, expires, order), payload)
    last_longer(stream, TTL)
  end

  -- Give messages that wait in a queue to clients that wait for them.
  function hand_out(channel)
    local queue = queue_of(channel)
    while length_of(channel, queue) > 0 do
      local who = next_waiter(channel)
      if not who then
        return
      end
      give(who, channel, pop(channel))
    end
  end

  -- Queue a message or give it to who waits; false where the channel is full.
  function push(channel, capacity, lifetime, payload)
    local expires = now + lifetime
    local length = call('LLEN', queue_of(channel))
    if length == 0 then
      local who = next_waiter(channel)
      if who then
        give(who, channel, expires, turn(), payload)
        count(channel, 'accepted', 1)
        return true
      end
    end
    if length >= capacity and length_of(channel, queue_of(channel)) >= capacity then
      return false
    end
    put(channel, 'RPUSH', expires, turn(), payload)
    count(channel, 'accepted', 1)
    return true
  end

  -- Put messages that were taken to the front again, the oldest first in `entries`.
  function put_back(channel, entries)
    for i = #entries, 1, -1 do
      local expires, order, payload = unpack(entries[i])
      if expires > now then
        put(channel, 'LPUSH', expires, order, payload)
      else
        count(channel, 'expired', 1)
      end
    end
    hand_out(channel)
  end

  function parse_label(value)
    local words = {}
    for word in string.gmatch(value, '[^ ]+') do
      words[#words + 1] = word
    end
    return words[1], tonumber(words[2]), tonumber(words[3]), words[4]
  end

  -- Remove messages that a client has in hand; return those of now by channel, in order.
  function drop_in_hand(client, ids)
    local by_channel = {}
    for _, id in ipairs(ids) do
      local value, payload
      if string.sub(id, 1, 1) == 'h' then
        local held = call('HGET', key('hand:', client), id)
        if held and call('HDEL', key('hand:', client), id) == 1 then
          local line_end = string.find(held, '\n', 1, true)
          value, payload = string.sub(held, 1, line_end - 1), string.sub(held, line_end + 1)
        end
      else
        local found = call('XRANGE', key('sub:', client), id, id)
        if found[1] and call('XDEL', key('sub:', client), id) == 1 then
          value, payload = found[1][2][1], found[1][2][2]
        end
      end
      if value then
        local channel, expires, order, its_gen = parse_label(value)
        if its_gen == gen then
          by_channel[channel] = by_channel[channel] or {}
          table.insert(by_channel[channel], {expires, order, payload})
        end
      end
    end
    return by_channel
  end

  function return_in_hand(client, ids)
    for channel, entries in pairs(drop_in_hand(client, ids)) do
      table.sort(entries, function(a, b) return a[2] < b[2] end)
      put_back(channel, entries)
    end
  end
end

-- Inboxes

local function has_inbox(client)
  return call('EXISTS', key('in:', client)) == 1
end

-- Whether so many bytes more may wait for a client; counts them if so.
local function has_bytes(client, size)
  local unread = call('HINCRBY', key('acc:', client), '', size)
  if unread == size then
    last_longer(key('acc:', client), TTL)
  end
  if unread <= INBOX_BYTES then
    return true
  end
  call('HINCRBY', key('acc:', client), '', -size)
  return false
end

local function tell(client, words, payload)
  return call('XADD', key('in:', client), '*', words .. ' ' .. gen, payload)
end

local function copy(client, group, lifetime, payload)
  if not has_inbox(client) then
    return
  end
  if has_bytes(client, #payload) then
    tell(client, 'G ' .. group .. ' ' .. text(now + lifetime), payload)
  else
    count('', 'full', 1)
  end
end

local function last_entry()
  local found = call('XREVRANGE', key('in:', me), '+', '-', 'COUNT', 1)
  return found[1] and found[1][1] or ''
end

-- Groups; likewise.
local group_keys, forget_member, owner_in, forget_some

local function load_groups()
  if group_keys then
    return
  end

  function group_keys(group)
    return base .. 'g:' .. gen .. ':' .. group, base .. 'go:' .. gen .. ':' .. group
  end

  function forget_member(group, channel, owner)
    local members, owners = group_keys(group)
    if call('HINCRBY', owners, owner, -1) <= 0 then
      call('HDEL', owners, owner)
    end
    call('SREM', base .. 'm:' .. gen .. ':' .. owner, group .. ' ' .. channel)
    if call('EXISTS', members) == 0 then
      call('SREM', base .. 'rg:' .. gen, group)
    end
  end

  function owner_in(channel)
    return string.match(channel, '([^.]*)!') or ''
  end

  -- Forget some members of a client; whether there are more.
  function forget_some(client)
    local mine = base .. 'm:' .. gen .. ':' .. client
    for _, member in ipairs(call('SPOP', mine, SLICE)) do
      local space = string.find(member, ' ', 1, true)
      local group, channel = string.sub(member, 1, space - 1), string.sub(member, space + 1)
      call('ZREM', (group_keys(group)), channel)
      forget_member(group, channel, client)
    end
    return call('EXISTS', mine) == 1
  end
end

local function refuse(channel)
  count(channel, 'refused', 1)
  return 0
end

local operations = {}

-- Send: channel, client that owns it or "", name of its account, capacity, lifetime, payload, and
-- 1 where being full is to be counted.
-- 1, or the id of the entry in the caller's own inbox: taken; 0: full.
function operations.send(channel, owner, account, capacity, lifetime, payload, counts_full)
  capacity, lifetime = tonumber(capacity), tonumber(lifetime)
  if owner == '' or not has_inbox(owner) then
    load_queues()
    if push(channel, capacity, lifetime, payload) then
      return 1
    end
    return counts_full == '1' and refuse(channel) or 0
  end
  local accounts = key('acc:', owner)
  local unread = call('HINCRBY', accounts, account, 1)
  if unread == 1 then
    last_longer(accounts, TTL)
  end
  if unread > capacity or not has_bytes(owner, #payload) then
    if unread == 1 then
      call('HDEL', accounts, account)
    else
      call('HINCRBY', accounts, account, -1)
    end
    return refuse(channel)
  end
  local id = tell(owner, 'M ' .. channel .. ' ' .. text(now + lifetime), payload)
  return owner == me and id or 1
end

-- Settle accounts: generation, the id after the newest entry read, bytes read, then account and
-- change of each.
function operations.settle(its_gen, after, bytes, ...)
  call('XTRIM', key('in:', me), 'MINID', after)
  if its_gen == gen then
    local accounts, given = key('acc:', me), {...}
    if bytes ~= '0' then
      call('HINCRBY', accounts, '', '-' .. bytes)
    end
    for i = 1, #given, 2 do
      if call('HINCRBY', accounts, given[i], given[i + 1]) <= 0 then
        call('HDEL', accounts, given[i])
      end
    end
  end
  return 1
end

function operations.none()
  return 0
end

local function queues()
  load_queues()

  -- Queue one copy of a group's message for a member that no client owns; a miss is counted.
  function operations.queue(channel, capacity, lifetime, payload)
    if not push(channel, tonumber(capacity), tonumber(lifetime), payload) then
      count(channel, 'full', 1)
    end
    return 1
  end

  -- Want some more messages, or fewer: name, change, 1 to wait for those that are not there.
  -- The messages taken, as {id, label, payload}; they are in hand until they are confirmed.
  function operations.want(name, change, waits)
    local taken, wanted = {}, tonumber(change)
    local line, mine = key('w:', name), key('want:', me)
    if wanted < 0 then
      local left = (tonumber(call('HGET', mine, name)) or 0) + wanted
      if left > 0 then
        call('HSET', mine, name, left)
      else
        call('HDEL', mine, name)
        call('ZREM', line, me)
      end
      return taken
    end
    if call('HEXISTS', base .. 'beats', me) == 0 then
      return taken -- forgotten: it hears of that with its next beat
    end
    while wanted > 0 do
      local channel = name
      if string.sub(name, -1) == '!' then
        channel = call('ZRANGE', base .. 'fam:' .. gen .. ':' .. name, 0, 0)[1]
      end
      local expires, order, payload
      if channel then
        expires, order, payload = pop(channel)
        if not expires and channel ~= name then
          call('ZREM', base .. 'fam:' .. gen .. ':' .. name, channel) -- it has expired
        end
      end
      if expires and waits == '1' and call('XLEN', key('sub:', me)) > 0 then
        give(me, channel, expires, order, payload) -- after what is on its way in the stream
        wanted = wanted - 1
      elseif expires then
        local id = 'h' .. text(turn())
        local value = label(channel, expires, order)
        call('HSET', key('hand:', me), id, value .. '\n' .. payload)
        taken[#taken + 1] = {id, value, payload}
        wanted = wanted - 1
      elseif not channel or channel == name then
        break
      end
    end
    if #taken > 0 then
      last_longer(key('hand:', me), TTL)
    end
    if wanted > 0 and waits == '1' then
      call('HINCRBY', mine, name, wanted)
      last_longer(mine, TTL)
      call('ZADD', line, 'NX', turn(), me)
      last_longer(line, TTL)
    end
    return taken
  end

  -- Take what is in hand for good: ids. For each whether it is still the caller's.
  function operations.confirm(...)
    local confirmed = {}
    for i, id in ipairs({...}) do
      confirmed[i] = next(drop_in_hand(me, {id})) and 1 or 0
    end
    return confirmed
  end

  -- Give back what is in hand: ids, in the order in which they came.
  operations['return'] = function(...)
    return_in_hand(me, {...})
    return 1
  end

  -- Give back what was confirmed: channel, generation in which it was given or "", then lifetime
  -- and payload of each, the oldest first.
  function operations.back(channel, its_gen, ...)
    if its_gen ~= '' and its_gen ~= gen then
      return 1 -- flushed
    end
    local entries, given = {}, {...}
    for i = 1, #given, 2 do
      entries[#entries + 1] = {now + tonumber(given[i]), 0, given[i + 1]}
    end
    put_back(channel, entries)
    return 1
  end
end

local function groups()
  load_groups()

  -- Add a member: group, channel, its owner or "", lifetime, 1 where the owner's inbox is here.
  -- {version, 1 where it is that owner's}
  function operations.add(group, channel, owner, lifetime, is_here)
    if is_here == '1' and owner ~= me and not has_inbox(owner) then
      owner = ''
    end
    local members, owners = group_keys(group)
    local before = tonumber(call('ZSCORE', members, channel) or 0)
    if owner ~= '' then
      call('ZADD', members, OWNED, channel)
      if before < OWNED then
        call('HINCRBY', owners, owner, 1)
        call('SADD', base .. 'm:' .. gen .. ':' .. owner, group .. ' ' .. channel)
      end
      last_longer(members, TTL)
      last_longer(owners, TTL)
      last_longer(base .. 'm:' .. gen .. ':' .. owner, TTL)
    else
      call('ZADD', members, text(now + tonumber(lifetime)), channel)
      if before >= OWNED then
        forget_member(group, channel, owner_in(channel))
      end
      last_longer(members, tonumber(lifetime))
    end
    local registry = base .. 'rg:' .. gen
    call('SADD', registry, group)
    last_longer(registry, call('PTTL', members))
    local version = call('HINCRBY', era_key, 'version', 1)
    if is_here == '1' and owner ~= '' and owner ~= me then
      tell(owner, 'A ' .. channel .. ' ' .. text(version), group)
    end
    return {version, owner == '' and 0 or 1}
  end

  -- Discard a member: group, channel, 1 where the inbox of its owner is here. {version}
  function operations.discard(group, channel, is_here)
    local members = group_keys(group)
    local before = call('ZSCORE', members, channel)
    call('ZREM', members, channel)
    local owner = owner_in(channel)
    if before and tonumber(before) >= OWNED then
      forget_member(group, channel, owner)
    end
    local version = call('HINCRBY', era_key, 'version', 1)
    if is_here == '1' and owner ~= me and has_inbox(owner) then
      tell(owner, 'X ' .. channel .. ' ' .. text(version), group)
    end
    return {version}
  end

  -- Tell the owner of a channel, whose inbox is here, of a change elsewhere: A or X, channel,
  -- version, group, owner.
  function operations.notify(what, channel, version, group, owner)
    if has_inbox(owner) then
      tell(owner, what .. ' ' .. channel .. ' ' .. version, group)
    end
    return 1
  end

  -- Send to a group: group, lifetime, payload. Clients whose inbox is here get their copy.
  -- {1 if the caller has members, its newest entry, other clients, channels of no client}
  function operations.publish(group, lifetime, payload)
    local members, owners = group_keys(group)
    call('ZREMRANGEBYSCORE', members, '-inf', text(now))
    local is_mine, others = 0, {}
    for _, owner in ipairs(call('HKEYS', owners)) do
      if owner == me then
        is_mine = 1
      elseif has_inbox(owner) then
        copy(owner, group, tonumber(lifetime), payload)
      else
        others[#others + 1] = owner
      end
    end
    local unowned = call('ZRANGEBYSCORE', members, '(' .. text(now), '(' .. text(OWNED))
    return {is_mine, last_entry(), others, unowned}
  end

  -- The same for clients that another shard knows to have members: group, lifetime, payload, clients.
  -- {the caller's newest entry}
  function operations.copy(group, lifetime, payload, ...)
    for _, owner in ipairs({...}) do
      if owner ~= me then
        copy(owner, group, tonumber(lifetime), payload)
      end
    end
    return {last_entry()}
  end

  function operations.members(group)
    local members = group_keys(group)
    return call('ZRANGEBYSCORE', members, '(' .. text(now), '+inf')
  end
end

local function house()
  load_queues()
  load_groups()

  -- Whether a client lives, whose home this is.
  function operations.alive(client)
    return has_inbox(client) and 1 or 0
  end

  -- Show life: counter, numbers, 1 at home, generation seen, then groups that have members here.
  -- {1 if this client is known here, 1 if it should look after the others, their beats}
  function operations.beat(counter, numbers, at_home, seen, ...)
    local beats = base .. 'beats'
    local is_known = call('HEXISTS', beats, me) == 1
    if at_home == '1' then
      is_known = is_known and has_inbox(me)
    end
    if not is_known then
      return {0}
    end
    if at_home == '1' then
      call('HSET', base .. 'stats', me, numbers)
      call('HSET', base .. 'seen', me, seen)
    end
    call('HSET', beats, me, counter)
    for _, name in ipairs({'era', 'beats', 'stats', 'seen', 'topology', 'tally', 'old'}) do
      last_longer(base .. name, TTL)
    end
    for _, kind in ipairs({'in:', 'sub:', 'hand:', 'acc:', 'want:', 'lane:', 'm:' .. gen .. ':'}) do
      call('PEXPIRE', key(kind, me), TTL)
    end
    for _, group in ipairs({...}) do
      local members, owners = group_keys(group)
      last_longer(members, TTL)
      last_longer(owners, TTL)
    end
    last_longer(base .. 'rg:' .. gen, TTL)
    for _, name in ipairs(call('HKEYS', key('want:', me))) do
      last_longer(key('w:', name), TTL)
    end
    local sweeper = base .. 'sweeper'
    if call('SET', sweeper, me, 'NX', 'PX', 3000) or call('GET', sweeper) == me then
      call('PEXPIRE', sweeper, 3000)
      return {1, 1, call('HGETALL', beats)}
    end
    return {1, 0}
  end

  -- Forget a client whose counter stands still, or itself: client, counter or "".
  -- 1: done; 0: it lives; 2: there is more to remove, ask again.
  function operations.forget(client, counter)
    local beats = base .. 'beats'
    if counter ~= '' and call('HGET', beats, client) ~= counter then
      return 0
    end
    for _, name in ipairs(call('HKEYS', key('want:', client))) do
      call('ZREM', key('w:', name), client)
    end
    call('UNLINK', key('want:', client), key('in:', client), key('acc:', client))
    local held = {}
    for _, found in ipairs(call('XRANGE', key('sub:', client), '-', '+', 'COUNT', SLICE)) do
      held[#held + 1] = found[1]
    end
    return_in_hand(client, held)
    local hand = call('HKEYS', key('hand:', client))
    return_in_hand(client, hand)
    if forget_some(client) or #held == SLICE then
      return 2
    end
    call('UNLINK', key('sub:', client), key('hand:', client))
    call('HDEL', beats, client)
    call('HDEL', base .. 'stats', client)
    call('HDEL', base .. 'seen', client)
    is_leaving = is_leaving or client == me
    call('UNLINK', key('lane:', client))
    if call('GET', base .. 'sweeper') == client then
      call('DEL', base .. 'sweeper')
    end
    return 1
  end

  -- Flush: every client whose home this is hears of it. {new generation}
  function operations.flush()
    local old = gen
    gen = text(call('HINCRBY', era_key, 'gen', 1))
    for _, client in ipairs(call('HKEYS', base .. 'beats')) do
      call('UNLINK', base .. 'm:' .. old .. ':' .. client, key('acc:', client))
      if has_inbox(client) then
        tell(client, 'F', '')
      end
    end
    call('RPUSH', base .. 'old', old)
    last_longer(base .. 'old', TTL)
    return {gen}
  end

  -- Remove some of what was flushed. 1: there is more.
  function operations.clean()
    local old = call('LINDEX', base .. 'old', 0)
    if not old then
      return 0
    end
    local channels = call('SPOP', base .. 'rq:' .. old, SLICE)
    for _, channel in ipairs(channels) do
      call('UNLINK', base .. 'q:' .. old .. ':' .. channel)
      if family(channel) then
        call('UNLINK', base .. 'fam:' .. old .. ':' .. family(channel))
      end
    end
    local groups = call('SPOP', base .. 'rg:' .. old, SLICE)
    for _, group in ipairs(groups) do
      call('UNLINK', base .. 'g:' .. old .. ':' .. group, base .. 'go:' .. old .. ':' .. group)
    end
    if #channels == 0 and #groups == 0 then
      call('LPOP', base .. 'old')
    end
    return call('EXISTS', base .. 'old')
  end

  -- Which clients, whose home this is, have not seen a flush: generation.
  function operations.unseen(generation)
    local unseen = {}
    for _, client in ipairs(call('HKEYS', base .. 'beats')) do
      local seen = call('HGET', base .. 'seen', client)
      if has_inbox(client) and not (seen and tonumber(seen) >= tonumber(generation)) then
        unseen[#unseen + 1] = client
      end
    end
    return unseen
  end

  function operations.seen(generation)
    if has_inbox(me) then
      call('HSET', base .. 'seen', me, generation)
    end
    return 1
  end

  -- Numbers of all queues: {counters, pending, milliseconds that the oldest has left or "", numbers of the clients}
  function operations.numbers()
    local pending, oldest = 0, nil
    for _, channel in ipairs(call('SMEMBERS', base .. 'rq:' .. gen)) do
      local queue = queue_of(channel)
      pending = pending + length_of(channel, queue)
      local head = call('LINDEX', queue, 0)
      if head then
        local expires = parse(head)
        oldest = math.min(oldest or expires, expires)
      else
        call('SREM', base .. 'rq:' .. gen, channel)
      end
    end
    local left = oldest and text(oldest - now) or ''
    return {call('HGETALL', base .. 'tally'), pending, left, call('HVALS', base .. 'stats'), second}
  end

  -- Numbers of one queue: channel. As `numbers`, without the clients.
  function operations.numbers_of(channel)
    local queue = queue_of(channel)
    local pending = length_of(channel, queue)
    local head = call('LINDEX', queue, 0)
    local left = head and text(parse(head) - now) or ''
    return {call('HGETALL', key('tally:', channel)), pending, left, {}, second}
  end

  -- Put a question or an answer into a client's inbox: words, text, client. 1 if it lives.
  function operations.talk(words, payload, client)
    if not has_inbox(client) then
      return 0
    end
    tell(client, words, payload)
    return 1
  end

  -- Forget the members of the caller, which enters them again; and, where the server went back in time,
  -- what waits in the queues, since it may have been read before: 1. 1: there is more, ask again.
  function operations.reset(is_rewound)
    if forget_some(me) then
      return 1
    end
    if is_rewound ~= '1' then
      return 0
    end
    local registry = base .. 'rq:' .. gen
    for _, channel in ipairs(call('SPOP', registry, SLICE)) do
      local queue = queue_of(channel)
      count(channel, 'gap', call('LLEN', queue))
      call('UNLINK', queue)
      note_head(channel, queue)
    end
    return call('EXISTS', registry)
  end
end

-- Make those that one of them is among.
local function make(name)
  local makers = {
    queue = queues,
    want = queues,
    confirm = queues,
    ['return'] = queues,
    back = queues,
    add = groups,
    discard = groups,
    notify = groups,
    publish = groups,
    copy = groups,
    members = groups,
    beat = house,
    forget = house,
    flush = house,
    clean = house,
    unseen = house,
    seen = house,
    numbers = house,
    numbers_of = house,
    reset = house,
    talk = house,
    alive = house,
  }
  makers[name]()
end

local results = {}
local at = 7
while ARGV[at] do
  local many = tonumber(ARGV[at + 1])
  if not operations[ARGV[at]] then
    make(ARGV[at])
  end
  local is_done, result = pcall(operations[ARGV[at]], unpack(ARGV, at + 2, at + 1 + many))
  if not is_done then
    result = {'!', type(result) == 'table' and result.err or tostring(result)}
  end
  results[#results + 1] = result
  at = at + 2 + many
end
write_counts()
local reply = {'ok', text(now), changes, results}
if not is_leaving then
  call('HSET', lane, 'number', number, 'results', cmsgpack.pack(reply))
  call('PEXPIRE', lane, TTL)
end
return reply
