"""`View`: what the application sees of a session's data, decoded, and what that weighs.

It knows neither journal nor store. It can tell which values have changed inside since they were
handed out, because it keeps the encoding that each had at that moment.

Invariant: `values` is `encoded` decoded, but for changes inside the containers that `exposed`
names.
"""

from __future__ import annotations

import json
from typing import Any

from minisession._codec import TooLong, decode, decode_many, encode
from minisession.errors import SessionTooLarge, UnstorableValue, UsageError

from .change import size_of

CONTAINERS = frozenset({list, dict, set, tuple})
"""Types whose values can change inside, in the application's hands. (A tuple can hold a list.)"""


def path_of(key: str) -> str:
    """Return how error messages name a key: as the codec names those inside of its value."""
    return f"session[{json.dumps(key)}]"


class View:
    """The data of one session as one exchange sees it."""

    __slots__ = ("encoded", "exposed", "size", "values")

    def __init__(self) -> None:
        self.encoded: dict[str, bytes] = {}
        self.values: dict[str, Any] = {}
        self.exposed: set[str] = set()
        self.size = 0

    def show(self, encoded: dict[str, bytes]) -> None:
        """Replace everything; values handed out before are no longer watched.

        Raises StoreCorrupt if a value cannot be decoded; then nothing has changed.
        """
        self.values = decode_many(encoded)
        self.encoded = encoded
        self.size = sum(size_of(key, data) for key, data in encoded.items())
        self.exposed.clear()

    def encode(self, key: str, value: Any, max_size: int) -> bytes:
        """Encode a value for `key`; the session need not be told of it.

        Raises UnstorableValue, or SessionTooLarge for a container that could never have room: then
        its encoding has not been written to the end, which may be gigabytes away.
        """
        before = self.encoded.get(key)
        room = max_size if before is None else max(max_size, len(before))
        try:
            return encode(value, "", room)
        except UnstorableValue as error:  # which says where in the value, and why
            raise UnstorableValue(f"{path_of(key)}{error}") from None
        except TooLong:
            raise _too_large(key, f"more than {room:,}", max_size) from None

    def require_room(self, key: str, data: bytes, max_size: int) -> int:
        """Return by how much a value makes the session grow; SessionTooLarge if it is too much.

        A value that is no larger than the one it replaces always has room: a session that is too
        large, because the limit was lowered, can still be made smaller.
        """
        growth = self._growth(key, data)
        if growth > 0 and self.size + growth > max_size:
            raise _too_large(key, f"{self.size + growth:,}", max_size)
        return growth

    def _growth(self, key: str, data: bytes) -> int:
        before = self.encoded.get(key)
        return size_of(key, data) if before is None else len(data) - len(before)

    def put(self, key: str, data: bytes, value: Any, growth: int) -> None:
        """Show `value`, whose encoding is `data`, under `key`; it adds `growth` bytes."""
        self.size += growth
        self.encoded[key] = data
        self.values[key] = value
        if type(value) in CONTAINERS:
            self.exposed.add(key)

    def put_encoded(self, key: str, data: bytes) -> None:
        """Show a value that the application has not seen yet."""
        self.put(key, data, decode(data), self._growth(key, data))
        self.exposed.discard(key)

    def drop(self, key: str) -> Any:
        """Stop showing `key`, and return its value."""
        self.size -= size_of(key, self.encoded.pop(key))
        self.exposed.discard(key)
        return self.values.pop(key)

    def changed_inside(self, max_size: int) -> tuple[dict[str, bytes], UsageError | None]:
        """Find the exposed values that have changed, and note their new encodings.

        A value that can no longer be stored is replaced by what it was; the first error that
        this met comes back with the changes of the other keys.
        """
        changes: dict[str, bytes] = {}
        first_error: UsageError | None = None
        for key in tuple(self.exposed):
            if key not in self.values:  # a thread read it at the moment when another dropped it
                self.exposed.discard(key)
                continue
            try:
                data = self._encode_again(key, max_size)
                if data is not None:
                    growth = self.require_room(key, data, max_size)
                    self.put(key, data, self.values[key], growth)
                    changes[key] = data
            except UsageError as error:
                self.put_encoded(key, self.encoded[key])
                first_error = first_error or error
        try:
            return changes, first_error
        finally:
            del first_error  # its traceback leads here, and from here to the session: a cycle

    def _encode_again(self, key: str, max_size: int) -> bytes | None:
        """Encode a value as it is now; None if that is nothing new.

        A value that a thread changes meanwhile is left for the next save: it shows as a
        RuntimeError ("changed size during iteration"), or as two looks that differ.
        """
        value = self.values[key]
        try:
            data = self.encode(key, value, max_size)
            if data == self.encoded[key] or data != self.encode(key, value, max_size):
                return None
        except RuntimeError:
            return None
        return data


def _too_large(key: str, size: str, max_size: int) -> SessionTooLarge:
    return SessionTooLarge(
        f"{path_of(key)}: the session would have {size} bytes;"
        f" SessionConfig(max_size={max_size}) allows no more."
        " Keep large things elsewhere, and their name in the session"
    )
