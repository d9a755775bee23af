"""A certificate of an authority that only the tests trust, as files, and contexts of clients."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

NAME = "localhost"


@dataclass(frozen=True)
class Certificate:
    """What a server needs, and who trusts it."""

    certfile: str
    keyfile: str
    authority: trustme.CA

    @property
    def options(self) -> dict[str, Any]:
        """The fields of a `ServerConfig`."""
        return {"certfile": self.certfile, "keyfile": self.keyfile}

    def client(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A context of a client that trusts it, and that speaks one version only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if version is not None:
            with warnings.catch_warnings():
                # Python says that TLS 1.1 is not to be used; that is what is tested.
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
            context.set_ciphers("DEFAULT@SECLEVEL=0")
        return context


def issue(folder: Path) -> Certificate:
    """Write a certificate for this machine's names, and its key, into a folder."""
    authority = trustme.CA()
    issued = authority.issue_cert(NAME, "127.0.0.1", "::1")
    found = Certificate(str(folder / "cert.pem"), str(folder / "key.pem"), authority)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(found.certfile, append=True)
    issued.private_key_pem.write_to_path(found.keyfile)
    return found
