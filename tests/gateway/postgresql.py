"""A PostgreSQL server of the tests' own: another user than root runs it, and only this machine reaches it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # what a killed process has written is kept by the operating system
    "max_connections": "200",
    "shared_buffers": "32MB",
}


def programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return folders[-1].parent if folders else None


class PostgreSQL:
    """`start` and `stop` it any number of times; its data stay until `remove`.

    Args:
        settings: of the server, beside and instead of `_SETTINGS`.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = {**_SETTINGS, **settings}
        found = programs()
        assert found is not None
        self._bin = found
        self._user = "postgres" if os.getuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="consisid-postgresql-"))
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        options = ["-U", "consisid", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
        command = [self._bin / "initdb", "-D", self._folder / "data", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_user())

    def start(self) -> None:
        """Returns when it answers."""
        settings = [text for name, value in self._settings.items() for text in ("-c", f"{name}={value}")]
        command = [self._bin / "postgres", "-D", self._folder / "data", "-p", str(self.port), *settings]

        def answers() -> bool:
            if self._process is None or self._process.poll() is not None:
                # Children of one that was killed may still be ending; no other starts beside them.
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user())
            return self._answers()

        wait_until(answers, 20.0)

    @property
    def process(self) -> int:
        """The number of the process whose children serve."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a crash: without a word to its clients. Its children end when they find it gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(2)  # fast: it disconnects its clients
        self._process.wait(20)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def database(self, template: str = "template1") -> str:
        """The URL of a new one, a copy of another."""
        self._made += 1
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(copy.format(sql.Identifier(f"test{self._made}"), sql.Identifier(template)))
        return self._url(f"test{self._made}")

    def _url(self, name: str) -> str:
        return f"postgresql://consisid@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_user(self) -> dict[str, Any]:
        user = {} if self._user is None else {"user": self._user, "group": self._user}
        return {"cwd": self._folder, **user}


def wait_until(true: Callable[[], Any], seconds: float) -> None:
    """Raises `AssertionError` where it does not come true in so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not true within {seconds} s: {true}"
        time.sleep(0.02)
