"""The one interface to the objects: a folder of this machine, or a bucket of S3."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from consisid_gateway.errors import StorageUnavailable, VideoExpired
from consisid_gateway.objects.folder import Folder
from consisid_runtime.errors import InvalidOption

_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webp": "image/webp"}
_KEY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
MARK = "consisid-database"
"""The object that says of which database the others are."""
_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{2,62})(?:/([\w./-]*))?", re.ASCII)
_PATIENCE = timedelta(seconds=10)
"""For which S3 is asked again where it does not answer, or says that it cannot now."""
_CONNECT, _WHOLE = timedelta(seconds=5), timedelta(seconds=60)


class Store:
    """Of one process. Thread-safe. A write is complete and outlives a loss of power, or nothing is there.

    Keys are ours, never a caller's; one that could lie outside of the store is a `ValueError`.

    Args:
        url: a folder's absolute path, which is made where it is not there, for this user alone; or `s3://bucket/prefix`,
            where credentials, region and endpoint are the environment's (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
            `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`).

    Attributes:
        url: as given.

    Raises `InvalidOption` for another URL. Every method raises `StorageUnavailable` where the store cannot be reached,
    or is full.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder: Folder | None = None
        self._mark: str | None = None
        if bucket := _BUCKET.fullmatch(url):
            name, prefix = bucket.groups("")
            self._store: Any = S3Store(
                name,
                prefix=prefix.strip("/") or None,
                client_options={
                    "connect_timeout": _CONNECT,
                    "timeout": _WHOLE,
                    # With options of ours, obstore reads no such variable itself.
                    "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"),
                },
                retry_config={"max_retries": 5, "retry_timeout": _PATIENCE},
            )
        elif url.startswith("/") and "\0" not in url:
            with _typed(reads=False):
                Path(url).mkdir(mode=0o700, parents=True, exist_ok=True)
                self._store = LocalStore(url)
            self._folder = Folder(Path(url))
        else:
            raise InvalidOption(f"objects are kept in a folder's absolute path, or in s3://BUCKET/PREFIX, got {url!r}")

    def mark(self) -> str | None:
        """Of which database its objects are, by its mark; None where it has none."""
        try:
            with _typed():
                content = bytes(obstore.get(self._store, MARK).bytes())
        except VideoExpired:
            return None
        return content.decode(errors="replace").strip()

    def require(self, mark: str) -> None:
        """From now on, without this mark it is a store that cannot be reached: its folder is not mounted any more."""
        self._mark = mark

    def put(self, key: str, content: bytes) -> None:
        """Replaces an object of the same key."""
        _require(_KEY.fullmatch(key), key)
        if self._folder is not None:  # a bucket that is not there says so itself
            self._check()
        with _typed(reads=False):
            if self._folder is not None:
                self._folder.write(key, content)
                return
            kind = next((kind for suffix, kind in _TYPES.items() if key.endswith(suffix)), "application/octet-stream")
            obstore.put(self._store, key, content, attributes={"Content-Type": kind})

    def get(self, key: str) -> bytes:
        """Raises `VideoExpired` for one that is not there."""
        with self._reading():
            return bytes(obstore.get(self._store, key).bytes())

    def size(self, key: str) -> int:
        """Bytes. Raises `VideoExpired`."""
        with self._reading():
            return int(obstore.head(self._store, key)["size"])

    def range(self, key: str, start: int, end: int) -> bytes:
        """Bytes from `start` to before `end`. Raises `VideoExpired`."""
        with self._reading():
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def delete(self, key: str) -> None:
        """Idempotent."""
        with _typed():
            try:
                obstore.delete(self._store, key)
            except (NotFoundError, FileNotFoundError):
                return

    def delete_all(self, prefix: str) -> None:
        """Whatever is below `prefix`, which ends with a slash. Idempotent."""
        _require(prefix.endswith("/") and _KEY.fullmatch(prefix[:-1]), prefix)
        self._check()
        with _typed():
            if self._folder is not None:
                self._folder.remove_all(prefix)
                return
            for found in obstore.list(self._store, prefix):
                obstore.delete(self._store, [each["path"] for each in found])

    def idle(self, parent: str, seconds: float) -> list[str]:
        """The prefixes right below `parent`, which ends with a slash, where nothing was written for so long."""
        self._check()
        latest: dict[str, float] = {}
        with _typed():
            if self._folder is not None:
                latest = self._folder.latest(parent)
            else:
                for found in obstore.list(self._store, parent):
                    for each in found:
                        name = each["path"].removeprefix(parent).partition("/")[0]
                        latest[name] = max(each["last_modified"].timestamp(), latest.get(name, 0.0))
        border = time.time() - seconds
        return [f"{parent}{name}/" for name, moment in latest.items() if moment < border]

    def _check(self) -> None:
        if self._mark is not None and self.mark() != self._mark:
            raise StorageUnavailable("the object store does not have this database's mark: is its folder mounted?")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with _typed():
                yield
        except VideoExpired:
            self._check()
            raise


def _require(sound: object, key: str) -> None:
    if not sound:
        raise ValueError(f"no key of this store: {key!r}")


@contextmanager
def _typed(*, reads: bool = True) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        if reads and isinstance(error, NotFoundError | FileNotFoundError):
            raise VideoExpired("the bytes are not stored any more") from error
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StorageUnavailable(f"the object store does not answer, or is full: {reason}") from error
