"""What is one tenant's does not exist for another one, whatever is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from whole import NAME, Whole


@dataclass
class Hers:
    """What ada has: a video that is done, one that waits, a character."""

    done: str
    waiting: str
    character: str


@pytest.fixture(scope="module")
def hers(whole: Whole) -> Hers:
    done, waiting = whole.video(whole.ada, Idempotency_Key="same"), whole.video(whole.ada)
    whole.finish(done)
    character = whole.form("/v1/videos/characters", whole.ada, file="video", name=NAME)
    assert character.status == 200, character.body
    return Hers(done, waiting, character.json["id"])


PATHS = [
    ("GET", "/v1/videos/{done}"),
    ("GET", "/v1/videos/{done}/content"),
    ("HEAD", "/v1/videos/{done}/content"),
    ("GET", "/v1/videos/{done}/content?variant=thumbnail"),
    ("GET", "/v1/videos/{done}/content?variant=spritesheet"),
    ("GET", "/v1/videos/{done}/events"),
    ("GET", "/v1/videos/{waiting}/events"),
    ("GET", "/v1/videos?after={done}"),
    ("POST", "/v1/videos/{waiting}/cancel"),
    ("DELETE", "/v1/videos/{done}"),
    ("DELETE", "/v1/videos/{waiting}"),
    ("GET", "/v1/videos/characters/{character}"),
    ("GET", "/v1/videos/characters?after={character}"),
    ("DELETE", "/v1/videos/characters/{character}"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_by_its_id(whole: Whole, hers: Hers, method: str, path: str) -> None:
    nothing = Hers("video_0", "video_0", "char_0")
    answer, other = (whole.ask(method, path.format(**vars(of)), whole.bob) for of in (hers, nothing))
    assert (answer.status, answer.code if answer.body else "") == (404, "VIDEO_NOT_FOUND" if answer.body else "")
    for name, value in vars(hers).items():
        answer.body = answer.body.replace(value.encode(), getattr(nothing, name).encode())
    assert (answer.status, answer.body) == (other.status, other.body), "as of what does not exist"
    assert whole.ask("GET", f"/v1/videos/{hers.done}", whole.ada).json["status"] == "completed"
    assert whole.ask("GET", f"/v1/videos/{hers.waiting}", whole.ada).json["status"] == "queued"
    assert whole.ask("GET", f"/v1/videos/{hers.done}/content", whole.ada).body == b"video"


def test_in_a_remix_and_as_a_character(whole: Whole, hers: Hers) -> None:
    for answer in (
        whole.form(f"/v1/videos/{hers.done}/remix", whole.bob, prompt="x"),
        whole.form("/v1/videos", whole.bob, prompt="x", character=hers.character),
    ):
        assert (answer.status, answer.code) == (404, "VIDEO_NOT_FOUND")


def test_in_lists(whole: Whole, hers: Hers) -> None:
    own = whole.video(whole.bob)
    found = [video["id"] for video in whole.ask("GET", "/v1/videos?limit=100", whole.bob).json["data"]]
    assert own in found and hers.done not in found and hers.waiting not in found
    assert whole.ask("GET", "/v1/videos/characters", whole.bob).json["data"] == []
    assert {hers.done, hers.waiting} <= {
        video["id"] for video in whole.ask("GET", "/v1/videos", whole.ada).json["data"]
    }


def test_by_its_idempotency_key(whole: Whole, hers: Hers) -> None:
    assert whole.video(whole.ada, Idempotency_Key="same") == hers.done
    assert whole.video(whole.bob, Idempotency_Key="same") != hers.done
