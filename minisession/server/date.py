"""The Date header: formatted once a second, because formatting costs more than asking the time."""

from __future__ import annotations

import time
from email.utils import formatdate


class DateCache:
    """Gives the current date in the form of RFC 9110 section 5.6.7. Mutable: the last answer."""

    def __init__(self) -> None:
        self._second = -1
        self._value = b""

    def __call__(self) -> bytes:
        """Return the value of a Date header for a response that starts now."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode("ascii")
        return self._value
