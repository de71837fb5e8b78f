"""What every store does, a folder and S3 alike."""

from __future__ import annotations

import threading
import time

import pytest

from consisid_gateway.errors import VideoExpired
from consisid_gateway.objects.store import Store
from consisid_runtime.errors import InvalidOption

VIDEO = bytes(range(256)) * 40_000
"""More than one part of an upload to S3."""


def test_what_is_put_is_there_whole_and_in_parts(place: str) -> None:
    store = Store(place)
    store.put("jobs/video_1/a.mp4", VIDEO)
    assert store.get("jobs/video_1/a.mp4") == VIDEO and store.size("jobs/video_1/a.mp4") == len(VIDEO)
    assert store.range("jobs/video_1/a.mp4", 255, 258) == bytes([255, 0, 1])
    assert store.range("jobs/video_1/a.mp4", len(VIDEO) - 1, len(VIDEO)) == b"\xff"
    store.put("jobs/video_1/a.mp4", b"another")
    store.put("jobs/video_1/empty", b"")
    assert Store(place).get("jobs/video_1/a.mp4") == b"another", "also for another process"
    assert store.get("jobs/video_1/empty") == b""


def test_what_is_deleted_is_gone_and_nothing_else(place: str) -> None:
    store = Store(place)
    for key in ("jobs/video_1/portrait", "jobs/video_1/checkpoints/1", "jobs/video_12/portrait"):
        store.put(key, b"x")
    store.delete_all("jobs/video_1/")
    store.delete_all("jobs/video_1/")
    store.delete("jobs/video_1/portrait")
    for key in ("jobs/video_1/portrait", "jobs/video_1/checkpoints/1"):
        for look in (store.get, store.size, lambda key: store.range(key, 0, 1)):
            with pytest.raises(VideoExpired):
                look(key)
    assert store.get("jobs/video_12/portrait") == b"x"


def test_what_nobody_writes_to_any_more_is_idle(place: str) -> None:
    store = Store(place)
    for key in ("jobs/video_1/portrait", "jobs/video_1/checkpoints/1", "characters/char_1/portrait"):
        store.put(key, b"x")
    assert store.idle("jobs/", 3600.0) == []
    time.sleep(1.1)  # S3 tells whole seconds
    store.put("jobs/video_2/portrait", b"x")
    assert store.idle("jobs/", 1.0) == ["jobs/video_1/"]
    assert store.idle("characters/", 1.0) == ["characters/char_1/"]


@pytest.mark.parametrize(
    "key", ["", "../x", "a/../../x", "/etc/x", "a//b", "a/", "a/.", "a\0b", "a b", "ä", ".hidden", "a#1", "a\nb"]
)
def test_no_key_leads_out_of_the_store(place: str, key: str) -> None:
    store = Store(place)
    store.put("jobs/video_1/portrait", b"x")
    with pytest.raises(ValueError, match="no key"):
        store.put(key, b"x")
    with pytest.raises(ValueError, match="no key"):
        store.delete_all(f"{key}/")
    with pytest.raises(ValueError, match="no key"):
        store.delete_all("jobs")
    assert store.get("jobs/video_1/portrait") == b"x"


def test_many_at_once(place: str) -> None:
    store, wrong = Store(place), list[BaseException]()

    def work(number: int) -> None:
        try:
            for turn in range(5):
                store.put(f"jobs/video_{number}/checkpoints/{turn}", bytes([number]) * 1000)
                assert store.get(f"jobs/video_{number}/checkpoints/{turn}") == bytes([number]) * 1000
                store.delete_all(f"jobs/video_{number}/")
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "url", ["", "objects", "./objects", "s3://", "s3://X", "s3:/b", "gs://bucket", "file:///tmp", "/a\0b"]
)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption, match="absolute path, or in s3"):
        Store(url)
