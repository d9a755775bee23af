"""The parts of `FilesStore`, from the bytes upwards.

form.py        one session as bytes, and the versions of that
names.py       which folder and which file a handle has
errors.py      what the operating system says, in words that help
shard.py       one folder of sessions: locking it, reading, writing, removing
root.py        the folder of all folders: making them, and what of them is safely on the disk
reader.py      loading and listing
syncs.py       many syncs at once
cases.py       the changes of one session in a batch
batches.py     batches, in the writer's thread
inspection.py  the folder as a whole: how much is in it, and is it sound
purge.py       removing what has expired, and setting aside what is damaged
place.py       one folder in use by one process
"""

from __future__ import annotations

from importlib.util import find_spec

from minisession.errors import ConfigError

if find_spec("fcntl") is None:
    raise ConfigError(
        "sessions in files need locks that this system does not have (fcntl: Linux, macOS, BSD)."
        " Use store='sqlite:///sessions.db'"
    )
