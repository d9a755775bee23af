"""`Opened`: a Redis store between its opening and its closing, with all that it is made of.

It owns the order in which things begin and end, and refuses to be used from another event loop.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from minisession._loop import current_loop
from minisession.errors import ConfigError, StoreUnavailable

from .cluster import Cluster
from .courier import Courier
from .home import Home
from .keys import Keys
from .lanes import Lanes
from .link import Login
from .listing import Reader
from .nodes import Nodes, sentinel, single
from .url import Kind, Place

CLOSE_TIMEOUT = 10.0  # seconds that the last changes have; a server that hangs has had two tries

KINDS: dict[Kind, Callable[[Home, Login, Place], Nodes]] = {
    "single": single,
    "sentinel": sentinel,
    "cluster": Cluster,
}


class Opened:
    """What an open store works with."""

    def __init__(self, place: Place, home: Home) -> None:
        self._loop = current_loop()
        login = Login(place.user, place.password, place.db, _tls(place))
        keys = Keys(place.prefix)
        self._nodes = KINDS[place.kind](home, login, place)
        self.courier = Courier(self._nodes, place)
        self.lanes = Lanes(home, self._nodes, self.courier, keys, self._loop)
        self.reader = Reader(self._nodes, self.courier, keys)

    def require_own_loop(self) -> None:
        """Refuse a caller on another event loop than the one that has the connections.

        Raises:
            StoreUnavailable: it is another one.
        """
        if current_loop() != self._loop:
            raise StoreUnavailable(
                "this RedisStore was opened in another event loop, and its connections belong to"
                " that; make and open one for each loop: `async with RedisStore(url) as store:`"
            )

    @classmethod
    @asynccontextmanager
    async def at(cls, place: Place) -> AsyncIterator[Opened]:
        """Open the place for the block. At its end, store what is left and close.

        Raises:
            StoreUnavailable: no server answers as it should; says why.
        """
        home = Home()
        opened = cls(place, home)
        try:
            async with home.open():
                await opened._nodes.open()
                await opened.courier.try_confirmation()
                try:
                    yield opened
                finally:
                    await opened._drain()
        finally:
            opened.lanes.give_up()

    async def _drain(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_TIMEOUT):
            await self.lanes.drained()


def _tls(place: Place) -> ssl.SSLContext | None:
    if not place.tls:
        return None
    try:
        return ssl.create_default_context(cafile=place.cafile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the URL of the Redis store: cafile={place.cafile}: {error}; allowed is a file with"
            " certificates of authorities, in PEM"
        ) from error
