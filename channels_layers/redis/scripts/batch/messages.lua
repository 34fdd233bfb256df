-- Messages to clients, by way of their inboxes.

local INBOX_BYTES = 67108864 -- unread bytes for one client, at which its inbox is full
local queues -- see queues.lua
local load_queues

local function has_inbox(client)
  return call('EXISTS', key('in:', client)) == 1
end

-- Put something into the inbox of a client, and return its id; false where the inbox is not here.
local function tell(client, words, payload)
  return call('XADD', key('in:', client), 'NOMKSTREAM', '*', words .. ' ' .. gen, payload)
end

-- Count the bytes of an entry; take it back and return false where the inbox has no room for it.
local function has_bytes(client, id, size)
  local accounts = key('acc:', client)
  local unread = call('HINCRBY', accounts, '', size)
  if unread == size then
    last_longer(accounts, TTL)
  end
  if unread <= INBOX_BYTES then
    return true
  end
  call('HINCRBY', accounts, '', -size)
  call('XDEL', key('in:', client), id)
  return false
end

-- Send: channel, client that owns it or "", name of its account, capacity, lifetime, payload, and
-- 1 where being full is to be counted.
-- 1, or the id of the entry in the caller's own inbox: taken; 0: full.
function operations.send(channel, owner, account, capacity, lifetime, payload, counts_full)
  capacity, lifetime = tonumber(capacity), tonumber(lifetime)
  if owner ~= '' then
    local accounts = key('acc:', owner)
    local unread = call('HINCRBY', accounts, account, 1)
    local id = unread <= capacity
      and tell(owner, 'M ' .. channel .. ' ' .. text(now + lifetime), payload)
    if id and has_bytes(owner, id, #payload) then
      return owner == me and id or 1
    end
    if unread == 1 then
      call('HDEL', accounts, account)
    else
      call('HINCRBY', accounts, account, -1)
    end
    if id or unread > capacity then
      count(channel, 'refused', 1)
      return 0
    end
  end
  load_queues()
  if queues.push(channel, capacity, lifetime, payload) then
    if owner ~= '' then
      -- Should the server have lost its owner, that finds it here when it comes back.
      local orphans = key('orphans:', owner)
      call('HSET', orphans, channel, account)
      last_longer(orphans, lifetime + 1000)
    end
    return 1
  end
  if counts_full == '1' then
    count(channel, 'refused', 1)
  end
  return 0
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
