"""That a store is the one of a database: else objects are missed that are elsewhere, or deleted that are another's."""

from __future__ import annotations

import sqlalchemy as sa

from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.tables import identity
from consisid_gateway.objects.store import MARK, Store
from consisid_runtime.errors import InvalidOption


def bind(store: Store, database: Database) -> None:
    """From now on the store works while it has the mark of this database, which it gets if neither had another.

    Raises `InvalidOption` for the store of another database, and for one without a mark where the database has had
    a store before: a folder that is not mounted, or another bucket. Raises `StorageUnavailable`.
    """
    with database.reading() as connection:
        own, marked = connection.execute(sa.select(identity.c.id, identity.c.marked)).one()
    found = store.mark()
    if found is None and marked:
        raise InvalidOption(
            f"{store.url} is not where this database's objects are: is the folder mounted, is it the right bucket? "
            f"To go on without them, put {own} into its object {MARK}"
        )
    if found not in (None, own):
        raise InvalidOption(
            f"{store.url} has the objects of another database, as its object {MARK} says; name that database, or "
            "another folder or prefix"
        )
    if found is None:
        store.put(MARK, own.encode())
    if not marked:
        with database.transaction() as connection:
            connection.execute(sa.update(identity).values(marked=True))
    store.require(own)
