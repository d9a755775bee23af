"""Values to bytes and back, faithfully or not at all. (signatures; the body follows)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def encode(value: object, path: str) -> bytes:
    """Return the canonical bytes of `value`; UnstorableValue names the key path of what is not."""
    raise NotImplementedError


def decode(data: bytes) -> Any:
    """Return the value that `encode` made `data` from; StoreCorrupt for anything else."""
    raise NotImplementedError


def decode_many(items: Mapping[str, bytes]) -> dict[str, Any]:
    """Return all values of a record; StoreCorrupt names the key that cannot be read."""
    raise NotImplementedError


def is_mutable(value: object) -> bool:
    """Say whether a storable value could change in its owner's hands after it was stored."""
    raise NotImplementedError
