"""What a key may have at once, also where several requests come at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from consisid_gateway.access import keys
from consisid_gateway.access.caller import Caller, Limits
from consisid_gateway.access.limits import require_room
from consisid_gateway.access.listeners import Listeners
from consisid_gateway.errors import LimitReached
from consisid_gateway.jobs import characters, ending
from consisid_gateway.jobs.creation import Wanted, create
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.job import Status, new_id
from consisid_gateway.jobs.tables import jobs
from consisid_runtime.options import Options


@pytest.fixture
def database(either: Database) -> Database:
    return either


class NoQueue:
    def put(self, *_: Any, **__: Any) -> None: ...

    put_face = put


def make_key(database: Database, tenant: str = "ada", **limits: int) -> Caller:
    with database.transaction() as connection:
        return keys.make(connection, tenant, limits=Limits(**limits))[1].caller


def post(database: Database, caller: Caller, portrait_bytes: int = 0) -> str:
    name = new_id("video")
    wanted = Wanted(name, caller.tenant, "a cat", Options(), "p", "consisid", portrait_bytes)
    with database.transaction() as connection:
        require_room(connection, caller)
        create(connection, NoQueue(), wanted)  # type: ignore[arg-type]
    return name


def end(database: Database, job: str, size: int) -> None:
    done = {"status": Status.COMPLETED, "video": "v", "video_bytes": size}
    with database.transaction() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.id == job).values(done))


def test_jobs_that_have_not_ended(database: Database) -> None:
    caller = make_key(database, jobs=2)
    first = post(database, caller)
    post(database, caller)
    with pytest.raises(LimitReached, match="there are 2") as refused:
        post(database, caller)
    assert refused.value.retry_after is not None
    end(database, first, 10)
    post(database, caller)


def test_the_limit_is_of_all_keys_of_a_tenant_and_of_no_other(database: Database) -> None:
    caller, second = make_key(database, jobs=1), make_key(database, jobs=1)
    post(database, caller)
    with pytest.raises(LimitReached):
        post(database, second)
    post(database, make_key(database, "bob", jobs=1))
    post(database, make_key(database))  # a key of ada's without a limit


def test_stored_bytes_of_videos_portraits_and_characters(database: Database) -> None:
    caller = make_key(database, stored_bytes=100)
    first = post(database, caller, portrait_bytes=40)
    end(database, first, 30)
    with database.transaction() as connection:
        characters.create(connection, NoQueue(), "char_1", "ada", "name", "p", 20, 60.0)  # type: ignore[arg-type]
        require_room(connection, caller, jobs=0, stored_bytes=10)
        with pytest.raises(LimitReached, match="90; delete") as refused:
            require_room(connection, caller, jobs=0, stored_bytes=11)
    assert refused.value.retry_after is None, "time alone does not help"
    with database.transaction() as connection:
        connection.execute(sa.update(jobs).values(expires_at=0.0))
        assert ending.expire(connection) == [first]
        require_room(connection, caller, jobs=0, stored_bytes=80)
        characters.delete(connection, "ada", "char_1")
        require_room(connection, caller, jobs=0, stored_bytes=100)


def test_many_at_once_do_not_exceed_it(database: Database) -> None:
    caller = make_key(database, jobs=3)
    refused: list[LimitReached] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        try:
            post(database, caller)
        except LimitReached as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(jobs)) == 3
    assert len(refused) == 5


def test_without_limits_nothing_is_counted(database: Database) -> None:
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    with database.reading() as connection:
        require_room(connection, Caller())
    assert not statements


def test_streams_of_events() -> None:
    listeners = Listeners(each=2, most=3)
    ada, bob = Caller("ada", "key_1"), Caller("bob", "key_2")
    first, second = listeners.one(ada), listeners.one(ada)
    first.__enter__()
    second.__enter__()
    with pytest.raises(LimitReached, match="2 streams"), listeners.one(ada):
        pass
    with listeners.one(bob):
        assert listeners.size == 3
        with pytest.raises(LimitReached, match="3 in all"), listeners.one(Caller("eve", "key_3")):
            pass
    first.__exit__(None, None, None)
    with listeners.one(ada):
        assert listeners.size == 2
    second.__exit__(None, None, None)
    assert listeners.size == 0 and not listeners._open
