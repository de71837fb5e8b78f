"""Portraits with a name."""

from __future__ import annotations

import base64
from typing import Any

import pytest


def post(gateway: Any, http: Any, name: str = "Ada", **more: Any) -> Any:
    return http.post("/v1/videos/characters", data={"name": name, **more}, files={"video": ("p.jpg", gateway.portrait)})


def test_its_face_is_read(gateway: Any, http: Any) -> None:
    with gateway.worker():
        character = post(gateway, http).json()
    assert (character["object"], character["status"], character["error"]) == ("character", "ready", None)
    assert character["face"] == {"faces": 1, "box": [8, 8, 90, 100], "quality": {"sharpness": 0.9}}


def test_as_json(gateway: Any, http: Any) -> None:
    url = f"data:image/jpeg;base64,{base64.b64encode(gateway.portrait).decode()}"
    with gateway.worker():
        answer = http.post("/v1/videos/characters", json={"name": "Ada", "video": {"image_url": url}})
    assert answer.json()["status"] == "ready"


def test_a_refused_face_is_not_kept(gateway: Any, http: Any) -> None:
    gateway.tenant[0] = "faceless"
    with gateway.worker(refuse="NO_FACE"):
        answer = post(gateway, http)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "NO_FACE")
    assert http.get("/v1/videos/characters").json()["data"] == []


def test_without_a_worker_it_is_pending(serving: Any) -> None:
    with serving(character_seconds=0.1) as gateway, gateway.client() as http:
        character = post(gateway, http).json()
        assert (character["status"], character["face"]) == ("pending", None)
        video = http.post("/v1/videos", json={"prompt": "x", "character": character["id"]}).json()
        assert gateway.parts.store.get(f"jobs/{video['id']}/portrait") == gateway.portrait


@pytest.mark.parametrize("spelled", ["text", "list", "objects", "form"])
def test_a_video_of_one(gateway: Any, http: Any, spelled: str) -> None:
    with gateway.worker():
        id = post(gateway, http).json()["id"]
    if spelled == "form":
        answer = http.post("/v1/videos", files={"prompt": (None, "x"), "characters[][id]": (None, id)})
    else:
        named: Any = {"text": id, "list": [id], "objects": [{"id": id}]}[spelled]
        answer = http.post("/v1/videos", json={"prompt": "x", "characters": named})
    assert answer.json()["character"] == id
    other = http.post(f"/v1/videos/{answer.json()['id']}/remix", json={"prompt": "y"})
    assert other.json()["character"] == id


def test_its_videos_stay(gateway: Any, http: Any) -> None:
    with gateway.worker():
        id = post(gateway, http).json()["id"]
    video = http.post("/v1/videos", json={"prompt": "x", "character": id}).json()["id"]
    gone = http.delete(f"/v1/videos/characters/{id}")
    assert gone.json() == {"id": id, "object": "character.deleted", "deleted": True}
    assert http.get(f"/v1/videos/characters/{id}").status_code == 404
    assert gateway.parts.store.get(f"jobs/{video}/portrait") == gateway.portrait
    assert http.post("/v1/videos", json={"prompt": "x", "character": id}).status_code == 404


def test_pages(gateway: Any, http: Any) -> None:
    gateway.tenant[0] = "many-faces"
    with gateway.worker():
        ids = [post(gateway, http).json()["id"] for _ in range(3)]
    page = http.get("/v1/videos/characters", params={"limit": 2, "order": "asc"}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"], page["last_id"]) == (ids[:2], True, ids[1])
    assert http.get("/v1/videos/characters", params={"after": ids[1], "order": "asc"}).json()["data"][0]["id"] == ids[2]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "video")])
def test_nobody_elses(gateway: Any, http: Any, method: str, path: str) -> None:
    with gateway.worker():
        id = post(gateway, http).json()["id"]
    gateway.tenant[0] = "stranger"
    if path:
        answer = http.post("/v1/videos", json={"prompt": "x", "character": id})
    else:
        answer = http.request(method, f"/v1/videos/characters/{id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "VIDEO_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"name": ""}, "name"), ({"name": "x" * 257}, "name"), ({"name": "a\0b"}, "name"), ({"nmae": "x"}, "nmae")],
    ids=str,
)
def test_refused(gateway: Any, http: Any, fields: dict[str, str], param: str) -> None:
    answer = post(gateway, http, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert http.post("/v1/videos/characters", json={"name": "x"}).json()["error"]["param"] == "video"
