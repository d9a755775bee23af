"""TLS between a connection and its transport, without waiting for anything itself.

Owns the context's settings and the encrypted halves of a connection's bytes. It has the same
interface as `Transport`, around any transport, and knows neither HTTP nor deadlines: the handshake
happens while the connection waits for its first request, and within that time.
"""

from __future__ import annotations

import contextlib
import ssl

import anyio.lowlevel

from .transport import RECEIVE_SIZE, Transport

# What one record of TLS holds (RFC 8446 section 5.1); more is cut into several anyway.
_RECORD = 16 * 1024


def create_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """Return what servers should offer today: TLS 1.2 and 1.3, Python's ciphers, http/1.1.

    Args:
        certfile: a PEM file with the certificate and those between it and the root.
        keyfile: its private key, in PEM and not encrypted; None if the certificate's file has it.

    Raises:
        OSError: a file cannot be read, or the two do not belong together (an SSLError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that starts over again and again makes the server work for nothing.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # An encrypted key would ask at the terminal, of which a server has none.
    context.load_cert_chain(certfile, keyfile, password=_refuse_to_ask)
    return context


def _refuse_to_ask() -> str:
    raise OSError("the private key is encrypted: openssl pkey -in key.pem -out plain.pem")


class TLSTransport(Transport):
    """A transport whose bytes are encrypted, around another one.

    Mutable: the two buffers, `_unsent` (encrypted and not yet with the kernel), `_taken` (how much
    of the caller's bytes `_unsent` stands for), `_is_up` (the handshake is over), `_is_over` (TLS
    is at its end) and `_is_deaf` (good-bye was said; what still comes is not decrypted).

    `send_nowait` says that bytes were taken only when the kernel has them, so a caller that has
    seen all of its bytes taken has nothing left here. Until then it repeats itself, as every
    caller of a transport does.
    """

    __slots__ = (
        "_inbound",
        "_inner",
        "_is_deaf",
        "_is_over",
        "_is_up",
        "_outbound",
        "_taken",
        "_tls",
        "_unsent",
    )

    def __init__(self, inner: Transport, context: ssl.SSLContext) -> None:
        self._inner = inner
        self._inbound, self._outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._inbound, self._outbound, server_side=True)
        self._unsent = memoryview(b"")
        self._taken = 0
        self._is_up = self._is_over = self._is_deaf = False

    def receive_nowait(self) -> bytes | None:
        """Return what has come, None if nothing has, no bytes if nothing ever will.

        A client that breaks off, or that does not speak TLS, is at its end.
        """
        if self._is_deaf:
            return self._inner.receive_nowait()
        while not self._is_over:
            try:
                if not self._is_up:
                    self._tls.do_handshake()
                    self._is_up = True
                return self._tls.read(RECEIVE_SIZE)
            except ssl.SSLWantReadError:
                if not self._take_more():
                    return None
            except (ssl.SSLError, OSError):  # among them the client's proper good-bye
                self._is_over = True
                self._flush_quietly()  # the alert that tells it why
        return b""

    def _take_more(self) -> bool:
        """Move encrypted bytes from the socket into TLS; return whether anything came."""
        self._flush_quietly()  # TLS may have to answer before the client says more
        data = self._inner.receive_nowait()
        if data is None:
            return False
        if data:
            self._inbound.write(data)
        else:
            self._inbound.write_eof()
        return True

    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` has something to work on."""
        if self._inbound.pending or self._tls.pending():  # more has come than one read returns
            await anyio.lowlevel.checkpoint()
        elif self._unsent and not self._is_up:  # who does not take the handshake says nothing
            await self._inner.wait_sendable()
            self._flush_quietly()
        else:
            await self._inner.wait_receivable()

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel; return how many it took, 0 if it is full.

        After a 0, the next call must begin with the same bytes.

        Raises:
            OSError: the connection is no more.
        """
        sent = 0
        while self._flush():
            sent, self._taken = sent + self._taken, 0
            if sent == len(data):
                break
            self._taken = self._encrypt(memoryview(data)[sent : sent + _RECORD])
        return sent

    def _encrypt(self, data: memoryview) -> int:
        try:
            return self._tls.write(data)
        except ssl.SSLError as error:  # an OSError, too; said plainly
            raise ConnectionError(f"TLS: {error.reason}") from error

    def _flush(self) -> bool:
        """Hand what is encrypted to the kernel; return whether it took all.

        Raises:
            OSError: the connection is no more.
        """
        while True:
            if not self._unsent:
                self._unsent = memoryview(self._outbound.read())
            if not self._unsent:
                return True
            count = self._inner.send_nowait(self._unsent)
            if count == 0:
                return False
            self._unsent = self._unsent[count:]

    def _flush_quietly(self) -> None:
        with contextlib.suppress(OSError):  # whoever reads next finds the end
            self._flush()

    async def wait_sendable(self) -> None:
        """Wait until the kernel takes bytes again."""
        await self._inner.wait_sendable()

    def stop_receiving(self) -> None:
        """Wake whoever waits to receive: from now on the connection is at its end."""
        self._inner.stop_receiving()

    def stop_sending(self) -> None:
        """Say good-bye in TLS's own way, so that nobody can cut a response short unnoticed."""
        if self._is_up and not self._is_over:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # it would like the client's good-bye as well
        self._is_deaf = True
        self._flush_quietly()
        self._inner.stop_sending()

    def stop(self) -> None:
        """Wake everybody who waits: nothing can be received or sent any more."""
        self._inner.stop()

    def close(self) -> None:
        """Give the socket back; the kernel still delivers what it has taken."""
        self._inner.close()

    def reset(self) -> None:
        """Close at once: the client gets an error, and the kernel drops what it holds."""
        self._inner.reset()
