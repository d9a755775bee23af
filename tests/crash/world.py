"""What a fresh look finds in a store that a dead process has left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minisession._codec import decode
from minisession._core.rules import Standing, standing
from minisession._ids import hash_secret, split_id
from minisession.abc import Record
from minisession.stores import open_store
from tests.crash.persistent import Persistent

NOW = 0.0  # before every end: nothing that is in the store may look expired


@dataclass(frozen=True)
class World:
    """All that lives.

    Attributes:
        records: every session, by handle.
        data: what is in each of them, decoded.
        damage: what is wrong with the files, as a whole or as it shows.
    """

    records: Mapping[str, Record]
    data: Mapping[str, Mapping[str, Any]]
    damage: list[str]

    def opened(self, id: str) -> Mapping[str, Any] | None:
        """Return what a browser with this cookie gets to see, None if nothing."""
        pair = split_id(id)
        assert pair is not None
        record = self.records.get(pair[0])
        if record is None:
            return None
        worth = standing(record, hash_secret(pair[1]), NOW)
        return self.data[pair[0]] if worth in (Standing.CURRENT, Standing.BORROWED) else None


async def look(kind: Persistent, folder: Path) -> World:
    """Open the store anew, read every record, and close it.

    Raises:
        StoreError: the store or a record cannot be read.
    """
    records: dict[str, Record] = {}
    missing: list[str] = []
    async with open_store(kind.url(folder)) as store:
        for summary in await store.scan(NOW):
            record = await store.load(summary.handle, NOW)
            if record is None:
                missing.append(f"session {summary.handle} is listed, and cannot be found")
            else:
                records[summary.handle] = record
    data = {
        handle: {key: decode(value) for key, value in record.items.items()}
        for handle, record in records.items()
    }
    return World(records, data, [*kind.damage(folder), *missing])
