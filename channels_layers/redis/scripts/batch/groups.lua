-- Groups: members, and the clients that own them.

local groups

local function load_groups()
  if groups then
    return
  end

  local OWNED = 9000000000000000 -- later than any time; members of a client end at this and their time
  local NEVER = OWNED + 7000000000000 -- a double still tells it from the number before

  local function group_keys(group)
    return base .. 'g:' .. gen .. ':' .. group, base .. 'go:' .. gen .. ':' .. group
  end

  local function forget_if_empty(group)
    if call('EXISTS', (group_keys(group))) == 0 then
      call('SREM', base .. 'rg:' .. gen, group)
    end
  end

  local function forget_member(group, channel, owner)
    local _, owners = group_keys(group)
    if call('HINCRBY', owners, owner, -1) <= 0 then
      call('HDEL', owners, owner)
    end
    call('SREM', base .. 'm:' .. gen .. ':' .. owner, group .. ' ' .. channel)
    forget_if_empty(group)
  end

  local function owner_in(channel)
    return string.match(channel, '([^.]*)!') or ''
  end

  -- Forget some members of a client; whether there are more.
  local function forget_some(client)
    local mine = base .. 'm:' .. gen .. ':' .. client
    for _, member in ipairs(call('SPOP', mine, SLICE)) do
      local space = string.find(member, ' ', 1, true)
      local group, channel = string.sub(member, 1, space - 1), string.sub(member, space + 1)
      call('ZREM', (group_keys(group)), channel)
      forget_member(group, channel, client)
    end
    return call('EXISTS', mine) == 1
  end

  groups = {group_keys = group_keys, forget_some = forget_some, forget_if_empty = forget_if_empty}

  -- Add a member: group, channel, its owner or "", lifetime, 1 where the owner's inbox is here, 1 if
  -- its owner ends it, and not the lifetime. {version, 1 where it is that owner's}
  function operations.add(group, channel, owner, lifetime, is_here, lasts)
    if is_here == '1' and owner ~= me and not has_inbox(owner) then
      owner = ''
    end
    local members, owners = group_keys(group)
    local before = tonumber(call('ZSCORE', members, channel) or 0)
    if owner ~= '' then
      call('HSETNX', base .. 'beats', owner, '0') -- so that it is looked after here, should it die
      call('ZADD', members, text(lasts == '1' and NEVER or OWNED + now + lifetime), channel)
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
    else
      forget_if_empty(group)
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

  local function last_entry()
    local found = call('XREVRANGE', key('in:', me), '+', '-', 'COUNT', 1)
    return found[1] and found[1][1] or ''
  end

  -- Who gets a message to a group: 1 if the caller has members, other clients, channels of no client.
  local function members_of(group)
    local members, owners = group_keys(group)
    if call('ZREMRANGEBYSCORE', members, '-inf', text(now)) > 0 then
      forget_if_empty(group)
    end
    local is_mine, others = 0, {}
    for _, client in ipairs(call('HKEYS', owners)) do
      if client == me then
        is_mine = 1
      else
        others[#others + 1] = client
      end
    end
    local unowned = call('ZRANGEBYSCORE', members, '(' .. text(now), '(' .. text(OWNED))
    return is_mine, others, unowned
  end

  -- Put a copy of a group's message into the inbox of a client, if that is here and has room.
  local function copy(client, words, payload)
    local id = tell(client, words, payload)
    if id and not has_bytes(client, id, #payload) then
      count('', 'full', 1)
    end
  end

  local function words_of(group, lifetime)
    return 'G ' .. group .. ' ' .. text(now + tonumber(lifetime))
  end

  -- Send to a group whose members are all here: group, lifetime, payload.
  -- {1 if the caller has members, its newest entry, channels of no client}
  function operations.publish(group, lifetime, payload)
    local is_mine, others, unowned = members_of(group)
    local words = words_of(group, lifetime)
    for _, client in ipairs(others) do
      copy(client, words, payload)
    end
    return {is_mine, last_entry(), unowned}
  end

  -- Ask who gets a message to a group: group.
  -- {1 if the caller has members, other clients with spaces between, channels of no client}
  function operations.owners(group)
    local is_mine, others, unowned = members_of(group)
    return {is_mine, table.concat(others, ' '), unowned}
  end

  -- Send to clients of a group, whose inboxes are here: group, lifetime, payload, clients with
  -- spaces between. {the caller's newest entry}
  function operations.copy(group, lifetime, payload, clients)
    local words = words_of(group, lifetime)
    for client in string.gmatch(clients, '%S+') do
      copy(client, words, payload)
    end
    return {last_entry()}
  end

  -- The caller's newest entry.
  function operations.newest()
    return last_entry()
  end

  -- The caller's own members: the id of a flush. 0 before that flush, else {version, "GROUP CHANNEL"}
  function operations.mine(flush)
    local era_now = call('HMGET', era_key, 'flush', 'version')
    if era_now[1] ~= flush then
      return 0
    end
    return {era_now[2] or 0, call('SMEMBERS', base .. 'm:' .. gen .. ':' .. me)}
  end

  -- The members that no client owns, and those of clients: group.
  function operations.members(group)
    local members = group_keys(group)
    local unowned = call('ZRANGEBYSCORE', members, '(' .. text(now), '(' .. text(OWNED))
    return {unowned, call('ZRANGEBYSCORE', members, '(' .. text(OWNED + now), '+inf')}
  end
end
