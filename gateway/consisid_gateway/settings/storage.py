"""The database and the objects that settings name."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.database import Database
from consisid_gateway.objects.mark import bind
from consisid_gateway.objects.store import Store
from consisid_gateway.settings.groups import Storage
from consisid_runtime.errors import InvalidOption, OutputUnwritable

_DATABASE, _OBJECTS = "consisid.sqlite", "objects"


def data_folder(data: Path | None) -> Path:
    """The folder `data`, absolute, or this user's own; made where it is not there, for this user alone.

    Raises `OutputUnwritable`; `InvalidOption` for a path that is no text, which object stores cannot hold.
    """
    folder = Path(os.path.abspath(_usual() if data is None else data))
    try:
        str(folder).encode()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except UnicodeEncodeError:
        raise InvalidOption(f"the folder of the data has bytes that are no text: {str(folder)!r}") from None
    except OSError as error:
        raise OutputUnwritable(f"the folder of the data cannot be made, {folder}: {error.strerror}") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OutputUnwritable(f"the folder of the data is closed to this user: {folder}")
    return folder


def open_database(settings: Storage, pool: int = 10) -> Database:
    """Prepared, with so many connections that are kept. Raises what `data_folder` and `Database.prepare` do.

    It is for who starts a process: what the driver says has the host, the user and the name, which callers never see.
    """
    url = settings.database or sa.URL.create("sqlite", database=str(data_folder(settings.data) / _DATABASE))
    database = Database(url, pool)
    try:
        database.prepare()
    except BaseException as error:
        database.close()
        if isinstance(error, StorageUnavailable) and (cause := error.__cause__) is not None:
            said = " ".join(str(getattr(cause, "orig", None) or cause).split())
            raise StorageUnavailable(f"{error}: {said[:300]}") from cause
        raise
    return database


def open_store(settings: Storage, database: Database) -> Store:
    """The store of this database. Raises what `data_folder`, `Store` and `bind` do."""
    store = Store(settings.objects or str(data_folder(settings.data) / _OBJECTS))
    bind(store, database)
    return store


def _usual() -> Path:
    shared = os.environ.get("XDG_DATA_HOME", "")
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".local" / "share") / "consisid"
