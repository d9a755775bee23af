-- One change to one session, as one step. It says in Lua what `rules.admits`,
-- `rules.create_is_possible` and `Row.apply` say in Python; a test holds it to that.
--
-- KEYS: the session's hash; where one server holds all keys, also the index of the principal that
-- the change names: then the session is listed there in the same step. In a cluster an index has
-- another slot, and is told before. The hash's fields:
--   v  version of this layout             n  bytes of the items, as `max_size` counts them
--   e  epoch                              q  the next place among the items
--   x  expires                            g  grace_until        (absent: 0)
--   s  secret's hash                      l  previous_loads     (absent: no)
--   p  previous secret's hash (or none)   c  epoch of the clear (absent: -1)
--   b  created                            t  how many tombstones (absent: 0)
--   k  cookie_until                       u  principal          (or none)
--   i  until when the index of the principal is certain to list it (or none)
--   =KEY  an item: "EPOCH.PLACE:DATA", or "EPOCH.PLACE" if it is a tombstone
--
-- ARGV: what the change asks for, see `wire.py`. Times are seconds by the clock of who asks; the
-- server's own is never read, so that all who share a session mean the same time.
--
-- Answers: {1, epoch, principal if its index must be written anew} committed; {2, replaced} gone;
-- {3, value} conflict; {4, size} too large; {5, what} damaged; {6, what} the index cannot be
-- written; {7, version} stored by a newer release. Nothing is written before all that can refuse
-- the change has been asked, of which the index is the last.

local key, op, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
local epoch, expires = tonumber(ARGV[3]), tonumber(ARGV[4])

local function whole(text)
  return text and string.match(text, '^%d+$') and tonumber(text)
end

local function real(text)
  local number = text and tonumber(text)
  return number == number and number
end

-- The session, nil if there is none, or nil and the answer that says why it cannot be read.
local function stored()
  local f = redis.pcall(
    'HMGET', key, 'v', 'e', 'x', 's', 'p', 'l', 'g', 'c', 'n', 't', 'q', 'b', 'k', 'u', 'i')
  if f.err then
    if string.sub(f.err, 1, 9) == 'WRONGTYPE' then return nil, { 5, 'what is stored is no hash' } end
    error(f)
  end
  if not f[1] and redis.call('EXISTS', key) == 0 then return nil end
  if f[1] and f[1] ~= '1' and string.find(f[1], '^[1-9]%d?%d?%d?%d?$') then
    return nil, { 7, f[1] }
  end
  local s = {
    epoch = whole(f[2]), expires = real(f[3]), secret = f[4], loads = f[6] == '1',
    grace = real(f[7] or '0'), cleared = tonumber(f[8] or '-1'), size = whole(f[9]),
    tombstones = whole(f[10] or '0'), place = whole(f[11]), principal = f[14],
    indexed = real(f[15] or '0'),
  }
  local sound = f[1] == '1' and s.epoch and s.expires and f[4] and #f[4] == 32 and
    (not f[5] or #f[5] == 32) and s.grace and s.cleared and s.size and s.tombstones and
    s.place and real(f[12]) and real(f[13]) and s.indexed
  if not sound then return nil, { 5, 'the stored fields are damaged' } end
  return s
end

-- What is stored under an item's key: nil, or its epoch, place and data (nil for a tombstone).
local function parsed(text)
  if not text then return nil end
  local _, last, of_epoch, place, colon = string.find(text, '^(%d+)%.(%d+)(:?)')
  if not last or (colon == '' and last < #text) then return nil, 'a stored item is damaged' end
  local data = nil
  if colon == ':' then data = string.sub(text, last + 1) end
  return { epoch = tonumber(of_epoch), place = place, data = data }
end

local function digits(number) return string.format('%.0f', number) end

-- The server refuses a life of -0, and one that its clock cannot add.
local function expire()
  local life = math.ceil((expires - now) * 1000)
  redis.call('PEXPIRE', key, digits(math.max(0, math.min(life, 2 ^ 53))))
end

-- Committed. An index that ends less than half a life after the session must be written anew: then
-- it lasts until somebody has done so, even if whoever is told now never does.
local function committed(s)
  local due = s.principal and s.indexed < s.expires + (s.expires - now) / 2
  return { 1, s.epoch, due and s.principal }
end

-- What an index says that cannot be written. The session's handle is what the braces hold.
local function unlisted()
  if not KEYS[2] then return nil end
  local handle = string.sub(key, string.find(key, '{', 1, true) + 1, -2)
  local refused = list(KEYS[2], handle, ARGV[15], ARGV[2])
  return refused and { 6, refused.err }
end

local function delete_fields(unwanted)
  for first = 1, #unwanted, 1000 do
    redis.call('HDEL', key, unpack(unwanted, first, math.min(first + 999, #unwanted)))
  end
end

local function items_where(condition)
  local found, all = {}, redis.call('HGETALL', key)
  for n = 1, #all, 2 do
    if string.sub(all[n], 1, 1) == '=' and condition(all[n + 1]) then found[#found + 1] = all[n] end
  end
  return found
end

local s, unreadable = stored()

if op == 'D' and unreadable and not epoch then  -- a revocation ends what cannot be read, too
  redis.call('DEL', key)
  return { 1, 0, false }
end
if unreadable then return unreadable end

if op == 'I' then  -- the index of this principal lists it until `expires`
  if s and s.principal == ARGV[5] and expires > s.indexed then redis.call('HSET', key, 'i', ARGV[4]) end
  return { 1, 0, false }
end

if op == 'C' then
  if expires <= now or (s and s.expires > now) then return { 2, 0 } end
  local size, place = 0, 0
  for n = 16, #ARGV, 3 do size = size + #ARGV[n] + #ARGV[n + 2] end
  if size > tonumber(ARGV[5]) then return { 4, size } end
  local refusal = unlisted()
  if refusal then return refusal end
  redis.call('DEL', key)
  for n = 16, #ARGV, 3 do
    redis.call('HSET', key, '=' .. ARGV[n], '0.' .. place .. ':' .. ARGV[n + 2])
    place = place + 1
  end
  redis.call('HSET', key, 'v', '1', 'e', '0', 'x', ARGV[4], 's', ARGV[6], 'b', ARGV[7],
    'k', ARGV[13], 'n', digits(size), 'q', digits(place))
  if ARGV[14] ~= '' then
    redis.call('HSET', key, 'u', string.sub(ARGV[14], 2), 'i', ARGV[15])
  end
  expire()
  return { 1, 0, false }
end

if not s then return { 2, 0 } end
if s.expires <= now then return { 2, 0 } end

local in_grace = epoch and epoch ~= s.epoch
if in_grace and (epoch ~= s.epoch - 1 or now >= s.grace) then return { 2, 1 } end

if op == 'D' then
  if in_grace and not s.loads then return { 2, 1 } end
  redis.call('DEL', key)
  return { 1, s.epoch, false }
end

if op == 'T' then
  if in_grace then return { 2, 1 } end
  if expires <= s.expires then return { 1, s.epoch, false } end
  s.expires = expires
  redis.call('HSET', key, 'x', ARGV[4])
  expire()
  return committed(s)
end

-- A Write.
local max_size, clear, rotates = tonumber(ARGV[5]), ARGV[9] == '1', ARGV[6] ~= ''
if in_grace and (clear or rotates or ARGV[14] ~= '' or s.cleared >= s.epoch) then
  return { 2, 1 }
end

local before = {}
for n = 16, #ARGV, 3 do
  local item, broken = parsed(redis.call('HGET', key, '=' .. ARGV[n]))
  if broken then return { 5, broken } end
  if item and in_grace and item.epoch >= s.epoch then return { 2, 1 } end
  before[ARGV[n]] = item
end

if ARGV[10] ~= '' then
  local item, broken = parsed(redis.call('HGET', key, '=' .. ARGV[11]))
  if broken then return { 5, broken } end
  local current = item and item.data
  local expected = ARGV[10] == '1' and ARGV[12] or nil
  if current ~= expected then return { 3, current or false } end
end

local growth = clear and -s.size or 0
for n = 16, #ARGV, 3 do
  local item = before[ARGV[n]]
  if ARGV[n + 1] == '1' then growth = growth + #ARGV[n] + #ARGV[n + 2] end
  if item and item.data and not clear then growth = growth - #ARGV[n] - #item.data end
end
if growth > 0 and s.size + growth > max_size then return { 4, s.size + growth } end

local refusal = unlisted()
if refusal then return refusal end

-- From here on nothing refuses any more.
local fields = { 'n', digits(s.size + growth) }
local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end

local function drop_tombstones()
  if s.tombstones == 0 then return end
  delete_fields(items_where(function(text) return not string.find(text, ':', 1, true) end))
  s.tombstones = 0
  for name, item in pairs(before) do
    if not item.data then before[name] = nil end
  end
end

local tombstones, place = s.tombstones, s.place
if rotates then
  drop_tombstones()
  s.epoch, s.grace = s.epoch + 1, tonumber(ARGV[7])
  set('e', digits(s.epoch))
  set('s', ARGV[6])
  set('p', s.secret)
  set('g', ARGV[7])
  set('l', ARGV[8])
end
if clear then
  delete_fields(items_where(function() return true end))
  s.tombstones, before = 0, {}
  set('c', digits(s.epoch))
end
if now >= s.grace then drop_tombstones() end

local stamp = digits(in_grace and s.epoch - 1 or s.epoch) .. '.'
for n = 16, #ARGV, 3 do
  local name, puts = ARGV[n], ARGV[n + 1] == '1'
  local item = before[name]
  local was_tombstone = item and not item.data
  if puts or now < s.grace then
    local at = item and item.place
    if not at then
      at = digits(s.place)
      s.place = s.place + 1
    end
    redis.call('HSET', key, '=' .. name, puts and stamp .. at .. ':' .. ARGV[n + 2] or stamp .. at)
    if was_tombstone and puts then s.tombstones = s.tombstones - 1 end
    if not was_tombstone and not puts then s.tombstones = s.tombstones + 1 end
  elseif item then
    redis.call('HDEL', key, '=' .. name)
  end
end

if s.tombstones ~= tombstones then set('t', digits(s.tombstones)) end
if s.place ~= place then set('q', digits(s.place)) end
if not in_grace then
  s.expires = expires
  set('x', ARGV[4])
  if ARGV[13] ~= '' then set('k', ARGV[13]) end
  if ARGV[14] == '-' then
    s.principal = false
    redis.call('HDEL', key, 'u', 'i')
  elseif ARGV[14] ~= '' then
    s.principal, s.indexed = string.sub(ARGV[14], 2), tonumber(ARGV[15])
    set('u', s.principal)
    set('i', ARGV[15])
  end
end
redis.call('HSET', key, unpack(fields))
if in_grace then return { 1, s.epoch, false } end
expire()
return committed(s)
