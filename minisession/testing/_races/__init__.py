"""The race kit: runs a scenario in many orders, and shows the one in which it fails.

    schedule.py      the choices: drawn from a seed, read from a trace, or counted through
    ready.py         which steps are ready, in an order that depends on nothing else
    run.py           one run of one scenario under one schedule
    search.py        many runs: by seeds, all of them, or one again
    shrink.py        a failing schedule, made short
    found.py         what is said about it
    stuck.py         which tasks wait, and where
    threads.py       worker threads, which run only while the loop stands still
    workers.py       threads of stores, driven as tasks
    anyio_shim.py    where anyio asks its backend for threads, it gets ours
    asyncio_shim.py  the loop, under control
    trio_shim.py     the same for trio

Importing it imports neither asyncio nor trio.
"""
