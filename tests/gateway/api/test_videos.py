"""Retrieve, list, cancel, delete, remix: of one's own videos, and of nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from consisid_gateway.jobs import ending
from consisid_gateway.jobs.running import NotOwner

ID = "video_" + "0" * 32


def test_how_far_it_is(gateway: Any, http: Any) -> None:
    gateway.tenant[0] = "far"
    first, second = gateway.create(http)["id"], gateway.create(http)
    assert second["position"] >= 1
    owner = gateway.claim(first)
    gateway.steps(owner, 1, 2)
    video = http.get(f"/v1/videos/{first}").json()
    assert (video["status"], video["stage"], video["done"], video["total"]) == ("in_progress", "denoise", 2, 4)
    assert (video["progress"], video["seconds_left"], video["position"]) == (50, 2.0, None)
    assert http.get(f"/v1/videos/{second['id']}").json()["position"] == second["position"] - 1
    gateway.complete(owner)
    answer = http.get(f"/v1/videos/{first}")
    assert answer.json()["face"] == {"box": [1, 2, 3, 4], "quality": {"blur": 0.1}}
    assert "openai-poll-after-ms" not in answer.headers


def test_a_list_by_pages(gateway: Any, http: Any) -> None:
    gateway.tenant[0] = "pages"
    assert http.get("/v1/videos").json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
    ids = [gateway.create(http)["id"] for _ in range(3)]
    page = http.get("/v1/videos", params={"limit": 2}).json()
    assert ([video["id"] for video in page["data"]], page["has_more"]) == (ids[:0:-1], True)
    rest = http.get("/v1/videos", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([video["id"] for video in rest["data"]], rest["has_more"]) == (ids[:1], False)
    assert http.get("/v1/videos", params={"order": "asc"}).json()["first_id"] == ids[0]


@pytest.mark.parametrize(
    ("query", "status"),
    [({"limit": 0}, 400), ({"limit": 101}, 400), ({"limit": "x"}, 400), ({"order": "up"}, 400), ({"after": ID}, 404)],
    ids=str,
)
def test_a_list_that_is_none(http: Any, query: dict[str, Any], status: int) -> None:
    answer = http.get("/v1/videos", params=query)
    assert answer.status_code == status and answer.json()["error"]["code"] in ("INVALID_OPTION", "VIDEO_NOT_FOUND")


def test_cancel(gateway: Any, http: Any) -> None:
    video = gateway.create(http)["id"]
    owner = gateway.claim(video)
    for _ in range(2):
        cancelled = http.post(f"/v1/videos/{video}/cancel").json()
        assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "CANCELLED")
    with pytest.raises(NotOwner):
        gateway.steps(owner, 1, 1)


def test_what_is_done_is_not_cancelled(gateway: Any, http: Any) -> None:
    video = gateway.create(http)["id"]
    gateway.finish(video)
    assert http.post(f"/v1/videos/{video}/cancel").json()["status"] == "completed"


def test_delete_while_it_runs(gateway: Any, http: Any) -> None:
    video = gateway.create(http)["id"]
    owner = gateway.claim(video)
    assert http.delete(f"/v1/videos/{video}").json() == {"id": video, "object": "video.deleted", "deleted": True}
    with pytest.raises(NotOwner):
        gateway.steps(owner, 1, 1)
    assert video not in gateway.parts.queue.waiting()
    with gateway.database.reading() as connection:
        assert f"jobs/{video}/" in ending.orphaned(connection, 10_000)
    assert http.delete(f"/v1/videos/{video}").status_code == 404


def test_remix_copies_the_portrait(gateway: Any, http: Any) -> None:
    video = gateway.create(http, seed=9)["id"]
    other = http.post(f"/v1/videos/{video}/remix", json={"prompt": "a person sings"}).json()
    http.delete(f"/v1/videos/{video}")
    gateway.parts.store.delete_all(f"jobs/{video}/")
    assert gateway.parts.store.get(f"jobs/{other['id']}/portrait") == gateway.portrait
    form = http.post(f"/v1/videos/{other['id']}/remix", files={"prompt": (None, "again"), "seed": (None, "2")})
    assert (form.json()["seed"], form.json()["remixed_from_video_id"]) == (2, other["id"])


@pytest.mark.parametrize(
    "fields", [{}, {"prompt": "y", "character": "x"}, {"prompt": "y", "model": "consisid"}], ids=str
)
def test_a_remix_that_is_none(gateway: Any, http: Any, fields: dict[str, str]) -> None:
    video = gateway.create(http)["id"]
    answer = http.post(f"/v1/videos/{video}/remix", json=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_OPTION")


def test_a_remix_of_what_is_gone(gateway: Any, http: Any) -> None:
    video = gateway.create(http)["id"]
    gateway.parts.store.delete_all(f"jobs/{video}/")
    answer = http.post(f"/v1/videos/{video}/remix", json={"prompt": "y"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "VIDEO_EXPIRED")


OPERATIONS = [
    ("GET", "/v1/videos/{}"),
    ("DELETE", "/v1/videos/{}"),
    ("POST", "/v1/videos/{}/cancel"),
    ("POST", "/v1/videos/{}/remix"),
    ("GET", "/v1/videos/{}/content"),
    ("GET", "/v1/videos/{}/events"),
    ("GET", "/v1/videos?after={}"),
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=" ".join)
def test_nobody_elses(gateway: Any, http: Any, method: str, path: str) -> None:
    video = gateway.create(http)["id"]
    gateway.finish(video)
    body = {"json": {"prompt": "y"}} if "remix" in path else {}
    gateway.tenant[0] = "stranger"
    answer = http.request(method, path.format(video), **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "VIDEO_NOT_FOUND")
    gateway.tenant[0] = "local"
    assert http.get(f"/v1/videos/{video}").json()["status"] == "completed"


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%00", "video_%F0%9F%98%80", "a" * 65, "'--", "%20"])
def test_ids_that_are_none(http: Any, name: str) -> None:
    for method, path in OPERATIONS:
        body = {"json": {"prompt": "y"}} if "remix" in path else {}
        answer = http.request(method, path.format(name), **body)
        assert answer.status_code in (404, 405), (method, path)
        assert answer.json()["error"]["code"] in ("VIDEO_NOT_FOUND", "NOT_FOUND")
