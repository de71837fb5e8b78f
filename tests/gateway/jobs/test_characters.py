from __future__ import annotations

import pytest
from shop import TENANT, Shop

from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs import characters, ending
from consisid_gateway.jobs.characters import Reading
from consisid_gateway.jobs.reading import Paging
from consisid_gateway.jobs.tables import characters as characters_table


def create(shop: Shop, id: str) -> characters.Character:
    with shop.database.transaction() as connection:
        return characters.create(connection, shop.queue, id, TENANT, f"name of {id}", "portrait", 3, 60.0)


def test_a_character_waits_and_is_read_once(shop: Shop) -> None:
    made = create(shop, "char_1")
    assert (made.status, made.name, made.face) == (Reading.PENDING, "name of char_1", None)
    assert shop.queue.waiting() == {"char_1"}
    with shop.database.transaction() as connection:
        assert characters.pending(connection, "char_1") == made
        characters.settle(connection, "char_1", {"faces_seen": 1})
        characters.refuse(connection, "char_1", "NO_FACE", "none")
        read = characters.get(connection, TENANT, "char_1")
        assert (read.status, read.face, read.error_code) == (Reading.READY, {"faces_seen": 1}, None)
        assert characters.pending(connection, "char_1") is None
        with pytest.raises(VideoNotFound):
            characters.get(connection, "another", "char_1")


def test_a_character_that_is_not_used_expires(shop: Shop) -> None:
    for id in ("char_1", "char_2"):
        create(shop, id)
    with shop.database.transaction() as connection:
        assert characters.expire(connection) == []
    shop.set(characters_table, expires_at=1.0)
    with shop.database.transaction() as connection:
        characters.use(connection, TENANT, "char_1", 60.0)
        assert characters.expire(connection) == ["char_2"]
        assert ending.orphaned(connection) == ["characters/char_2/"]
        with pytest.raises(VideoNotFound):
            characters.use(connection, TENANT, "char_2", 60.0)
        with pytest.raises(VideoNotFound):
            characters.use(connection, "another", "char_1", 60.0)


def test_pages(shop: Shop) -> None:
    for id in ("char_1", "char_2", "char_3"):
        create(shop, id)
    with shop.database.reading() as connection:
        page = characters.page(connection, TENANT, Paging("char_3", 1))
    assert [one.id for one in page.rows] == ["char_2"]
    assert page.has_more


def test_deletion_takes_the_portrait_along(shop: Shop) -> None:
    create(shop, "char_1")
    with pytest.raises(VideoNotFound), shop.database.transaction() as connection:
        characters.delete(connection, "another", "char_1")
    with shop.database.transaction() as connection:
        characters.delete(connection, TENANT, "char_1")
        assert ending.orphaned(connection) == ["characters/char_1/"]
        assert ending.whole("characters/char_1/") == "char_1"
        with pytest.raises(VideoNotFound):
            characters.delete(connection, TENANT, "char_1")
