"""The parts of `RedisStore`, from the URL upwards.

url.py        what a URL says, checked
keys.py       the names of keys, and their slots
wire.py       changes, records and outcomes as the server keeps and sends them
change.lua    what a change does to a session, in the server
index.lua     what a principal's index is told, in the server
scripts.py    both, under the names that the server gives them
errors.py     what the server says, in words that help
home.py       the tasks of an open store
link.py       one connection to one server, made again when it is lost
nodes.py      who to ask for a key: a single server, or the one that Sentinel names
cluster.py    the same for a cluster
courier.py    commands to whom they belong, wherever that has moved
lanes.py      what was handed over: at most one change of a session at a time
listing.py    loading and listing
opened.py     all of it together, between open and close

From `home.py` on they need coredis, which takes a second to import: `redis.py` imports them when
a store is opened.
"""
