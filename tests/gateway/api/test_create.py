"""What a request for a video may be: as JSON and as a form, with every option, and what is refused."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from consisid_gateway.jobs import reading
from consisid_runtime.errors import ConsentRefused

Send = Callable[..., Any]


def data_url(content: bytes) -> dict[str, str]:
    return {"image_url": f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"}


@pytest.fixture(params=["json", "form"])
def send(request: pytest.FixtureRequest, http: Any, gateway: Any) -> Send:
    """Sends the same fields in one of both forms."""

    def as_json(portrait: bytes | None = gateway.portrait, **fields: Any) -> Any:
        image = {} if portrait is None else {"input_reference": data_url(portrait)}
        return http.post("/v1/videos", json=image | fields)

    def as_form(portrait: bytes | None = gateway.portrait, **fields: Any) -> Any:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        files = {"input_reference": ("p.jpg", portrait)} if portrait is not None else {"none": b""}
        if portrait is None:
            files = {name: (None, value) for name, value in texts.items()}
            return http.post("/v1/videos", files=files)
        return http.post("/v1/videos", data=texts, files=files)

    return as_json if request.param == "json" else as_form


OPTIONS = {
    "negative_prompt": "blur",
    "seed": 2**62,
    "tier": "draft",
    "steps": 7,
    "guidance": 1.5,
    "dynamic_guidance": True,
    "frames": 17,
    "height": 48,
    "width": 72,
    "fps": 12,
    "scheduler": "ddim",
    "face_index": 1,
    "face_scale": 0.5,
    "global_identity": False,
    "local_identity": False,
    "keypoints": "source",
}


def test_every_option(send: Send, gateway: Any) -> None:
    answer = send(prompt="a person waves", **OPTIONS)
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert video["options"] == OPTIONS
    assert (video["size"], video["seconds"], video["seed"]) == ("72x48", "1.41667", 2**62)
    with gateway.database.reading() as connection:
        job = reading.get(connection, "local", video["id"])
    assert gateway.parts.store.get(job.portrait) == gateway.portrait


def test_size_and_seconds(send: Send) -> None:
    video = send(prompt="x", size="720x480", seconds="6").json()
    assert video["options"] == {"width": 720, "height": 480, "frames": 49}
    assert (video["size"], video["seconds"]) == ("720x480", "6")
    assert send(prompt="x", seconds=2, fps=16).json()["options"] == {"frames": 33, "fps": 16}


def test_what_is_not_said_is_not_known(send: Send) -> None:
    video = send(prompt="x").json()
    assert (video["size"], video["seconds"], video["seed"], video["options"]) == (None, None, 0, {})
    assert (video["model"], video["priority"], video["character"]) == ("consisid", "default", None)


def test_urgent(send: Send) -> None:
    assert send(prompt="x", priority="urgent").json()["priority"] == "urgent"


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({"num_inference_steps": 4}, "num_inference_steps", "'steps'"),
        ({"promt": "x"}, "promt", "'prompt'"),
        ({"output_path": "/etc/passwd"}, "output_path", "known fields"),
        ({"steps": 0}, "steps", "1 to 1000"),
        ({"steps": "many"}, "steps", "1 to 1000"),
        ({"guidance": "nan"}, "guidance", "finite"),
        ({"dynamic_guidance": "perhaps"}, "dynamic_guidance", "true or false"),
        ({"tier": "best"}, "tier", "exact"),
        ({"size": "720"}, "size", "WIDTHxHEIGHT"),
        ({"size": "0x480"}, "size", "width"),
        ({"size": "72x48", "width": 72}, "size", "excludes"),
        ({"seconds": "0"}, "seconds", "above 0"),
        ({"seconds": "4", "frames": 9}, "seconds", "excludes"),
        ({"priority": "high"}, "priority", "urgent"),
        ({"model": "sora-2"}, "model", "'consisid'"),
        ({"prompt": " \u200b"}, "prompt", "empty"),
        ({"prompt": "x" * 2**16 + "x"}, "prompt", "65536"),
        ({"character": "char_x"}, "character", "exclude each other"),
        ({"webhook": "http://169.254.169.254/"}, "webhook", ""),
    ],
    ids=str,
)
def test_refused(send: Send, gateway: Any, fields: dict[str, Any], param: str, part: str) -> None:
    rows, objects = gateway.rows(), gateway.objects()
    answer = send(**{"prompt": "x"} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert part in error["message"] and error["remedy"] and error["type"] == "invalid_request_error"
    assert (gateway.rows(), gateway.objects()) == (rows, objects)


def test_without_a_prompt(http: Any, gateway: Any) -> None:
    error = http.post("/v1/videos", files={"input_reference": gateway.portrait}).json()["error"]
    assert (error["code"], error["param"]) == ("INVALID_OPTION", "prompt")


def test_without_a_portrait(send: Send) -> None:
    error = send(portrait=None, prompt="x").json()["error"]
    assert (error["code"], error["param"]) == ("INVALID_OPTION", "input_reference")


@pytest.mark.parametrize(
    ("portrait", "code"),
    [
        (b"", "IMAGE_UNREADABLE"),
        (b"no image", "IMAGE_UNREADABLE"),
        (b"\xff\xd8\xff\xe0broken", "IMAGE_UNREADABLE"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 64, "IMAGE_UNREADABLE"),
    ],
)
def test_portraits_that_are_none(send: Send, portrait: bytes, code: str) -> None:
    error = send(portrait=portrait, prompt="x").json()["error"]
    assert (error["code"], error["param"]) == (code, "input_reference")


def test_a_small_portrait(send: Send) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    assert send(portrait=buffer.getvalue(), prompt="x").json()["error"]["code"] == "IMAGE_TOO_SMALL"


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.org/p.jpg",
        {"image_url": "https://example.org/p.jpg"},
        {"image_url": "file:///etc/passwd"},
        {"image_url": "data:image/jpeg;base64,###"},
        {"image_url": "data:text/html,x"},
        {"file_id": "file-1"},
        {"image_url": 7},
        ["data:image/jpeg;base64,AAAA"],
    ],
    ids=str,
)
def test_nothing_is_fetched(http: Any, reference: Any) -> None:
    answer = http.post("/v1/videos", json={"prompt": "x", "input_reference": reference})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_reference")


def test_null_is_not_given(http: Any, gateway: Any) -> None:
    fields = {"prompt": "x", "input_reference": data_url(gateway.portrait), "steps": None, "size": None}
    assert http.post("/v1/videos", json=fields).json()["options"] == {}


def test_the_operators_consent(serving: Any) -> None:
    asked = []

    def consent(image: bytes, prompt: str, options: Any, caller: str) -> str | None:
        asked.append((image, prompt, options.seed, caller))
        if prompt == "break":
            raise RuntimeError
        return "not this one" if prompt == "refuse" else None

    with serving(consent=consent) as gateway, gateway.client() as http:
        gateway.create(http, "allow", seed=3)
        files = {"input_reference": gateway.portrait}
        refused = http.post("/v1/videos", data={"prompt": "refuse"}, files=files)
        broken = http.post("/v1/videos", data={"prompt": "break"}, files=files)
        assert gateway.rows() == 1 and len(gateway.objects()) == 1
    assert asked[0] == (gateway.portrait, "allow", 3, "local")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, ConsentRefused.code)
    assert refused.json()["error"]["message"] == "not this one"
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "HOOK_FAILED")


def test_consent_that_is_never_answered(serving: Any) -> None:
    ending = threading.Event()

    def consent(*_: Any) -> None:
        ending.wait(20)

    with serving(consent=consent, consent_seconds=0.1) as gateway, gateway.client() as http:
        answer = http.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": gateway.portrait})
        assert gateway.rows() == 0
        ending.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "SERVER_TIMEOUT")


def test_a_failed_transaction_leaves_no_object(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from consisid_gateway.errors import StorageUnavailable
    from consisid_gateway.jobs.queue import Queue

    def away(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("the database does not answer")

    monkeypatch.setattr(Queue, "put", away)
    with serving() as gateway, gateway.client() as http:
        answer = http.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": gateway.portrait})
        assert gateway.rows() == 0
        assert list((gateway.folder / "jobs").iterdir()) == []
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "data", "field"),
    [("/v1/videos", {"prompt": "x"}, "input_reference"), ("/v1/videos/characters", {"name": "x"}, "video")],
)
def test_a_commit_without_an_answer_keeps_the_portrait(
    serving: Any, monkeypatch: pytest.MonkeyPatch, path: str, data: dict[str, str], field: str
) -> None:
    """The database was lost after it had stored the rows: they are found when it is back, and need the portrait."""
    import sqlalchemy as sa

    with serving() as gateway, gateway.client() as http:

        def lost(driver: Any) -> None:
            driver.commit()
            raise sa.exc.OperationalError("COMMIT", {}, ConnectionError())

        monkeypatch.setattr(gateway.database.engine.dialect, "do_commit", lost)
        answer = http.post(path, data=data, files={field: gateway.portrait})
        monkeypatch.undo()
        kept = gateway.objects("jobs") | gateway.objects("characters")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert [name.rpartition("/")[2] for name in kept] == ["portrait"]
