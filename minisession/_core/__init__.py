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

The words, from the application to the store:

    exchange   one use of a session, mostly one HTTP request; it has one ledger
    journal    what was written and not yet handed over, as segments
    segment    operations that become one change: of one life, with at most one new id
    life       one session in the store, from `Create` to `Destroy`
    flight     what is handed over and not yet answered; a session has one at a time
    leg        one change in a flight, and the segments that it carries
    settle     to note what the store answered; then the flight has landed
    gone       the store's answer: the session has ended, or its id was replaced
    void       a session found gone: it can be read, and what is written counts for nothing
    doubt      the store has a change and did not answer; a refresh looks
"""
