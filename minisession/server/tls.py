"""TLS between a connection and its transport, without waiting for anything itself.

Owns the context's settings and the encrypted halves of a connection's bytes. It has the same
interface as `Transport`, around any transport, and knows neither HTTP nor deadlines: the handshake
happens while the connection waits for its first request, and within that time.
"""

from __future__ import annotations

import contextlib
import ssl

import anyio.lowlevel

from .errors import CertificateRefused
from .transport import Transport

# What one record of TLS holds (RFC 8446 section 5.1): one read returns no more, and a longer write
# is cut into several anyway.
_RECORD = 16 * 1024

# What TLS may have to answer by itself (a KeyUpdate has 27 bytes) while the client reads nothing.
_MOST_ANSWERS = 16 * 1024


def create_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """Return what servers should offer today: TLS 1.2 and 1.3, Python's ciphers, http/1.1.

    Args:
        certfile: a PEM file with the certificate and those between it and the root.
        keyfile: its private key, in PEM and not encrypted; None if the certificate's file has it.

    Raises:
        CertificateRefused: a file cannot be read, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that starts over again and again makes the server work for nothing.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A client may hang up without TLS's good-bye (RFC 9112 section 9.8), or send the end of its
    # stream and wait for the response; HTTP itself says whether a request has come to its end.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certfile, keyfile or certfile)
    return context


def _load(context: ssl.SSLContext, certfile: str, keyfile: str) -> None:
    def refuse_to_ask() -> str:  # OpenSSL would, at the terminal, of which a server has none
        raise CertificateRefused(
            f"{keyfile}: the private key is encrypted. Keep a plain one where only the server can"
            f" read it: openssl pkey -in {keyfile} -out plain.pem"
        )

    for path in (certfile, keyfile):  # OpenSSL does not say which of the two it could not read
        try:
            open(path, "rb").close()
        except OSError as error:
            raise CertificateRefused(f"{path}: {error.strerror}") from None
    try:
        context.load_cert_chain(certfile, keyfile, password=refuse_to_ask)
    except ssl.SSLError as error:
        raise CertificateRefused(_complaint(error, certfile, keyfile)) from None


def _complaint(error: ssl.SSLError, certfile: str, keyfile: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{keyfile}: this private key does not belong to the certificate in {certfile}"
    return (
        f"{certfile} and {keyfile}: needed are a certificate and its private key, in PEM:"
        " -----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----"
    )


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
                return self._tls.read(_RECORD)
            except ssl.SSLWantReadError:
                if not self._take_more():
                    return None
            except (ssl.SSLError, OSError):  # among them the client's proper good-bye
                self._is_over = True
                self._flush_quietly()  # the alert that tells it why
        return b""

    def _take_more(self) -> bool:
        """Move encrypted bytes from the socket into TLS; return whether anything has changed."""
        self._flush_quietly()  # TLS may have to answer before the client says more
        if self._outbound.pending > _MOST_ANSWERS:
            self._is_over = True
            return True
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
        if self._has_more():
            await anyio.lowlevel.checkpoint()
        elif self._unsent and not self._is_up:  # who does not take the handshake says nothing
            await self._inner.wait_sendable()
            self._flush_quietly()
        else:
            await self._inner.wait_receivable()

    def _has_more(self) -> bool:
        """Whether more has come than one read returns."""
        return not self._is_deaf and bool(self._inbound.pending or self._tls.pending())

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

    def untaken(self) -> int:
        """Return how many octets the client has not taken of what the kernel was handed."""
        return self._inner.untaken()

    def wake_receiver(self) -> None:
        """End a wait to receive; a handshake, which may wait to send, ends with it."""
        if self._is_up:
            self._inner.wake_receiver()
        else:
            self._inner.stop()

    def stop_receiving(self) -> None:
        """Wake whoever waits to receive: from now on the connection is at its end."""
        if self._is_up:
            self._inner.stop_receiving()
        else:
            self._inner.stop()  # a handshake may wait to send

    def stop_sending(self) -> bool:
        """Say good-bye in TLS's own way, so that nobody can cut a response short unnoticed.

        Return whether the kernel has all of it; if not, call again once it takes bytes.
        """
        if self._is_up and not (self._is_over or self._is_deaf):
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # it would like the client's good-bye as well
        self._is_deaf = True
        with contextlib.suppress(OSError):  # nobody is there to read it
            if not self._flush():
                return False
        return self._inner.stop_sending()

    def stop(self) -> None:
        """Wake everybody who waits: nothing can be received or sent any more."""
        self._inner.stop()

    def close(self) -> None:
        """Give the socket back; the kernel still delivers what it has taken."""
        self._inner.close()

    def reset(self) -> None:
        """Close at once: the client gets an error, and the kernel drops what it holds."""
        self._inner.reset()
