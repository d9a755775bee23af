"""The clauses of the store contract, one function each, named for what it demands.

trial.py      what every clause is given: a store, a clock, and a way to say what is broken
life.py       coming to life, expiring, ending, and never coming back
items.py      puts, drops, clears, compare-and-set; nobody undoes what another wrote
rotation.py   a new secret, and what late writers of the old one may still do
limits.py     how large a session may become
batches.py    outcomes in order, bad neighbours, lost waits
listing.py    lists, and what a purge removes
lasting.py    what is still there when the store is opened again
"""
