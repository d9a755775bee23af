"""The pure heart: what a session is and what may become of it.

Nothing in this folder awaits, reads a clock or knows a store; new ids come from `_ids`. Values
come in, values go out, and every function is over when it returns.

    change.py    the frozen values that sessions and stores exchange: changes, records, outcomes
    rules.py     who may read a stored session, and which change still counts
    journal.py   the writes that the store does not have yet
    view.py      what the application sees, decoded, and what has changed inside
    books.py     all that is known of one session in one exchange, and its lifecycle
    plan.py      what is handed to the store, and when things end
    settle.py    what the store's answers mean
    ledger.py    what an application may do with the books
    session.py   the mapping that applications use
"""
