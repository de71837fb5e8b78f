"""A store is the one of a database, or nothing of it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.database import Database
from consisid_gateway.objects.mark import bind
from consisid_gateway.objects.store import MARK, Store
from consisid_runtime.errors import InvalidOption

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
KEY = "jobs/video_1/portrait"


def bound(place: str, database: Database) -> Store:
    store = Store(place)
    bind(store, database)
    return store


def test_any_number_of_processes_have_it(place: str, database: Database) -> None:
    bound(place, database).put(KEY, b"x")
    assert bound(place, database).get(KEY) == b"x"


def test_the_store_of_another_database_is_refused(place: str, database: Database, tmp_path: Path) -> None:
    bound(place, database).put(KEY, b"x")
    another = Database(f"sqlite:///{tmp_path / 'another'}")
    another.prepare()
    with pytest.raises(InvalidOption, match="objects of another database"):
        bound(place, another)
    another.close()
    assert bound(place, database).get(KEY) == b"x"


def test_a_store_without_the_mark_is_not_taken_for_an_empty_one(place: str, database: Database) -> None:
    bound(place, database)
    elsewhere = f"{place}-elsewhere"
    with pytest.raises(InvalidOption, match="is the folder mounted") as caught:
        bound(elsewhere, database)
    # As the message says.
    Store(elsewhere).put(MARK, str(caught.value).partition("put ")[2].partition(" ")[0].encode())
    bound(elsewhere, database).put(KEY, b"x")


def test_a_store_that_loses_the_mark_is_as_one_that_does_not_answer(place: str, database: Database) -> None:
    store = bound(place, database)
    Store(place).delete(MARK)
    looks = [lambda: store.get(KEY), lambda: store.size(KEY), lambda: store.range(KEY, 0, 1)]
    removals = [lambda: store.delete_all("jobs/video_1/"), lambda: store.idle("jobs/", 0.0)]
    writes = [lambda: store.put(KEY, b"x")] if place.startswith("/") else []
    for act in (*looks, *removals, *writes):
        with pytest.raises(StorageUnavailable, match="mark"):
            act()
