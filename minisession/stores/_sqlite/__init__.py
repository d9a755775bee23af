"""The parts of `SQLiteStore`, from the file upwards.

schema.py        the tables, and which file is ours
errors.py        what SQLite says, in words that help
connect.py       from a path to a connection that is fit for use
rows.py          a row of `session`, checked; a record
reader.py        loading and listing
inspection.py    the file as a whole: how much is there, and is it sound?
apply.py         what a change does to the tables, inside a transaction
batches.py       transactions, in the writer's thread
checkpoints.py   from the WAL into the database, in a thread of its own
database.py      one file in use by one process
"""
