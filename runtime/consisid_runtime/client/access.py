"""What a client shows a server, and by what it knows one: a bearer token, and certificate authorities."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.small_file import read_small
from consisid_runtime.wire import TOKEN_VARIABLE

_TOKEN = re.compile(r"[!-~]{1,4096}")
_BUNDLE = "ca-certificates.crt"
"""The name that Debian's and Alpine's folders of authorities have for all of them in one file."""


@dataclass(frozen=True, slots=True)
class Access:
    """Of one client.

    Attributes:
        token: is sent as `Authorization: Bearer TOKEN`; None sends none.
        roots: PEM, the authorities whose servers are trusted; None: those of the system.
        traceparent: of W3C's Trace Context; a door's spans then belong to that trace. None sends none.
    """

    token: str | None = field(default=None, repr=False)
    roots: bytes | None = field(default=None, repr=False)
    traceparent: str | None = None

    @classmethod
    def read(cls, token: str | None, ca: str | Path | None) -> Access:
        """The token where none is given is that of `TOKEN_VARIABLE`; an empty one is none.

        Raises `InvalidOption` for a token that no header can carry, or a file without certificates; `FileInaccessible`.
        """
        found = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
        if not isinstance(found, str) or (found and not _TOKEN.fullmatch(found)):
            raise InvalidOption("a token is at most 4096 visible ASCII characters without spaces")
        access = cls(found or None, None if ca is None else read_small(Path(ca)))
        if access.roots is not None:
            try:
                access.context()
            except (ssl.SSLError, ValueError) as error:
                raise InvalidOption(f"{ca} holds no certificates in PEM") from error
        return access

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries; the names are those of gRPC's metadata too."""
        token = None if self.token is None else f"Bearer {self.token}"
        sent = {"authorization": token, "traceparent": self.traceparent}
        return {name: value for name, value in sent.items() if value is not None}

    def context(self) -> ssl.SSLContext:
        """For HTTPS. Raises `SSLError` or `ValueError` where `roots` are no certificates."""
        if self.roots is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=self.roots.decode("ascii"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def grpc_roots(self) -> bytes | None:
        """For gRPC, which would else trust a list of its own. None where the system has no such file."""
        if self.roots is not None:
            return self.roots
        paths = ssl.get_default_verify_paths()
        files = [paths.cafile, os.path.join(paths.capath, _BUNDLE) if paths.capath else None]
        return next((Path(file).read_bytes() for file in files if file and os.path.isfile(file)), None)
