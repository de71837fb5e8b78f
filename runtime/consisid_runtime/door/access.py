"""Who may call: a bearer token, and the certificate with which callers know the door."""

from __future__ import annotations

import hmac
import os
import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import InvalidOption, Unauthenticated
from consisid_runtime.files.small_file import read_small
from consisid_runtime.wire import TOKEN_VARIABLE

_TOKEN = re.compile(r"[!-~]{16,4096}")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call. Health answers need no token.

    Attributes:
        token: what every caller sends as `Authorization: Bearer TOKEN`; None asks for none.
        certificate, key: PEM, of the door's own TLS; None for plain connections.
        proxies: who tells the door whose requests it passes on.
    """

    token: str | None = field(default=None, repr=False)
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    proxies: Proxies = field(default_factory=Proxies)
    _files: tuple[Path, Path] | None = None

    @classmethod
    def read(
        cls,
        token_file: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        proxies: str | None = None,
    ) -> Access:
        """From files, and the token from `TOKEN_VARIABLE` where no file is named.

        Raises `FileInaccessible`, or `InvalidOption` for a token, a certificate or a proxy that cannot be used.
        """
        trusted = Proxies.read(proxies or "")
        token = os.environ.get(TOKEN_VARIABLE)
        if token_file is not None:
            token = read_small(token_file).decode(errors="replace").strip()
        if token is not None and not _TOKEN.fullmatch(token):
            raise InvalidOption("a token is 16 to 4096 visible ASCII characters without spaces; make one by chance")
        read = [read_small(path) for path in (certificate, key) if path is not None]
        if not read:
            return cls(token, proxies=trusted)
        if certificate is None or key is None:
            raise InvalidOption("TLS needs both a certificate and its key; name two PEM files")
        access = cls(token, read[0], read[1], trusted, (certificate, key))
        access.context()
        return access

    def context(self) -> ssl.SSLContext | None:
        """For HTTPS; None without TLS. Raises `InvalidOption` for a certificate that cannot be used."""
        if self._files is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(*self._files, password=lambda: b"")
        except (ssl.SSLError, OSError) as error:
            raise InvalidOption(
                f"{self._files[0]} and {self._files[1]} are no PEM certificate with its unencrypted key: {error}"
            ) from error
        return context

    def check(self, authorization: bytes | str | None) -> None:
        """Raises `Unauthenticated` unless the value of the header `authorization` carries the token."""
        if self.token is None:
            return
        given = authorization.encode(errors="replace") if isinstance(authorization, str) else authorization or b""
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token.encode()):
            raise Unauthenticated("this server wants a bearer token in the header `authorization`")


def owner(host: str | None) -> str:
    """Whom an address belongs to, for limits: an IPv6 network of 64 bits is one owner's."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or ""
    address = getattr(address, "ipv4_mapped", None) or address
    return str(address) if address.version == 4 else f"{ip_address(int(address) >> 64 << 64)}/64"
