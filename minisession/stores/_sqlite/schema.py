"""The tables of the SQLite store, and the marks by which a file is known as ours.

It owns the SQL that creates and recognises; it opens nothing.

Items are rows, so that writers of different keys touch different rows and an update costs what it
writes. Ordinary rowid tables: `WITHOUT ROWID` made values of 1 kB take 4.5 times the space. STRICT:
not even a person with a shell can store a text where bytes belong.
"""

from __future__ import annotations

APPLICATION_ID = 0x6D73_6573  # "mses"; `file sessions.db` shows it
VERSION = 1
OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables came with 3.37 (2021-11), RETURNING with 3.35."""

SCHEMA = """
CREATE TABLE session (
    id             INTEGER PRIMARY KEY,
    handle         TEXT NOT NULL UNIQUE,
    secret         BLOB NOT NULL,
    epoch          INTEGER NOT NULL DEFAULT 0,
    created        REAL NOT NULL,
    expires        REAL NOT NULL,
    cookie_until   REAL NOT NULL,
    previous       BLOB,
    previous_loads INTEGER NOT NULL DEFAULT 0,
    grace_until    REAL NOT NULL DEFAULT 0,
    cleared        INTEGER NOT NULL DEFAULT -1,
    principal      TEXT,
    size           INTEGER NOT NULL  -- of its items in bytes; an upper bound
) STRICT;
CREATE INDEX session_expires ON session (expires);
CREATE INDEX session_principal ON session (principal) WHERE principal IS NOT NULL;

CREATE TABLE item (
    session INTEGER NOT NULL,
    key     TEXT NOT NULL,
    data    BLOB,                    -- NULL: a tombstone, dropped in this epoch
    epoch   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX item_key ON item (session, key);
CREATE INDEX item_tombstone ON item (session) WHERE data IS NULL;
"""

STATEMENTS = [statement for statement in SCHEMA.split(";\n") if statement.strip()]

MIGRATIONS: dict[int, list[str]] = {}
"""The statements that turn a file of a version into one of the next. A change of `SCHEMA` raises
`VERSION`, and adds here how files of the version before get there; their content is kept."""


def statements_from(version: int) -> list[str]:
    """Return what brings a file of a version up to date. Version 0 is an empty file."""
    if version == 0:
        return STATEMENTS
    return [statement for each in range(version, VERSION) for statement in MIGRATIONS[each]]


HASH_LENGTH = 32  # bytes of a SHA-256

SOUND = f"""
    typeof(secret) = 'blob' AND length(secret) = {HASH_LENGTH}
    AND (previous IS NULL OR typeof(previous) = 'blob' AND length(previous) = {HASH_LENGTH})
    AND typeof(expires) = 'real' AND epoch >= 0
"""
"""What an undamaged row fulfils, as far as a condition can tell: rows.py looks more closely."""
