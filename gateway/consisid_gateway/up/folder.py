"""The folder of the data, which one `consisid up` has at a time."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consisid_runtime.errors import OutputBusy, OutputUnwritable
from consisid_runtime.files.atomic import write_file

_LOCK, _CERTIFICATE, _KEY, _SECRET = "up.lock", "door.pem", "door.key", "webhook.secret"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nobody else has the folder in this block; it is free again when this process ends, however it ends.

    Raises `OutputBusy`, `OutputUnwritable`.
    """
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutputUnwritable(f"{path} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            raise OutputBusy(f"{folder} is that of another `consisid up`, process {holder or 'unknown'}") from None
        with contextlib.suppress(OSError):  # a full disk; the number is for people
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def door_certificate(folder: Path) -> tuple[Path, Path]:
    """A new certificate of the door, which is its own authority, and its key: nobody else answers in its place.

    A port on loopback is everybody's while the door is started again. Raises `OutputUnwritable`.
    """
    from consisid_runtime.serve.private import make_certificate

    key, certificate = make_certificate("127.0.0.1")
    for name, content in ((_KEY, key), (_CERTIFICATE, certificate)):
        write_file(folder / name, content)
    return folder / _CERTIFICATE, folder / _KEY


def webhook_secret(folder: Path) -> Path:
    """The file of the secret with which webhooks are signed, made with the folder's first use. Raises as above."""
    path = folder / _SECRET
    if not path.exists():
        write_file(path, b"whsec_" + base64.b64encode(secrets.token_bytes(32)) + b"\n")
    return path
