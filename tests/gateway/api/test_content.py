"""The bytes of a video: whole, in ranges, not again, not yet, not any more."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest


@pytest.fixture(scope="module")
def video(gateway: Any) -> str:
    with gateway.client() as http:
        found: str = gateway.create(http)["id"]
    gateway.finish(found)
    return found


def test_whole(gateway: Any, http: Any, video: str) -> None:
    answer = http.get(f"/v1/videos/{video}/content")
    assert (answer.status_code, answer.content) == (200, gateway.video)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(gateway.video))
    assert answer.headers["etag"] == f'"{hashlib.sha256(gateway.video).hexdigest()}"'
    assert answer.headers["content-disposition"] == f'inline; filename="{video}.mp4"'


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=300000-", 300_000, 640_000),
        ("bytes=-5", 639_995, 640_000),
        ("bytes=-9999999", 0, 640_000),
        ("bytes=639999-9999999999", 639_999, 640_000),
        ("BYTES = 1 - 2", 1, 3),
    ],
)
def test_a_range(gateway: Any, http: Any, video: str, asked: str, start: int, end: int) -> None:
    answer = http.get(f"/v1/videos/{video}/content", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, gateway.video[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/640000"


@pytest.mark.parametrize("asked", ["bytes=640000-", "bytes=-0", "bytes=99999999999-999999999999"])
def test_a_range_behind_the_end(http: Any, video: str, asked: str) -> None:
    answer = http.get(f"/v1/videos/{video}/content", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */640000")
    assert answer.json()["error"]["code"] == "RANGE_REFUSED"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=5-1", "lines=1-2", "bytes=x-y", "bytes=-", ""])
def test_what_is_no_single_range(gateway: Any, http: Any, video: str, asked: str) -> None:
    answer = http.get(f"/v1/videos/{video}/content", headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, 640_000)


def test_what_the_caller_has(http: Any, video: str) -> None:
    path = f"/v1/videos/{video}/content"
    tag = http.head(path).headers["etag"]
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = http.get(path, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert http.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert http.get(path, headers={"Range": "bytes=0-1", "If-Range": '"x"'}).status_code == 200
    assert http.get(path, headers={"Range": "bytes=0-1", "If-Range": tag}).status_code == 206


def test_head(http: Any, video: str) -> None:
    answer = http.head(f"/v1/videos/{video}/content")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "640000", b"")
    part = http.head(f"/v1/videos/{video}/content", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (206, "10")


@pytest.mark.parametrize(("variant", "suffix"), [("thumbnail", ""), ("spritesheet", "sheet")])
def test_pictures(gateway: Any, http: Any, video: str, variant: str, suffix: str) -> None:
    answer = http.get(f"/v1/videos/{video}/content", params={"variant": variant})
    assert answer.content == gateway.portrait + suffix.encode()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"] == f'inline; filename="{video}-{variant}.jpg"'


def test_an_unknown_variant(http: Any, video: str) -> None:
    answer = http.get(f"/v1/videos/{video}/content", params={"variant": "portrait"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "variant")


def test_not_yet(gateway: Any, http: Any) -> None:
    early = gateway.create(http)["id"]
    owner = gateway.claim(early)
    assert http.get(f"/v1/videos/{early}/content").json()["error"]["code"] == "VIDEO_NOT_READY"
    gateway.fail(owner)
    answer = http.get(f"/v1/videos/{early}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "VIDEO_NOT_READY")


def test_not_any_more(gateway: Any, http: Any) -> None:
    from consisid_gateway.jobs import ending

    late = gateway.create(http)["id"]
    gateway.complete(gateway.claim(late), kept=-1.0)
    with gateway.database.transaction() as connection:
        assert late in ending.expire(connection)
    answer = http.get(f"/v1/videos/{late}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "VIDEO_EXPIRED")
    assert http.get(f"/v1/videos/{late}").json()["status"] == "completed"


def test_an_object_that_is_gone(gateway: Any, http: Any) -> None:
    lost = gateway.create(http)["id"]
    gateway.finish(lost)
    gateway.parts.store.delete_all(f"jobs/{lost}/")
    assert http.get(f"/v1/videos/{lost}/content").json()["error"]["code"] == "VIDEO_EXPIRED"
