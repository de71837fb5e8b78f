"""Bodies that are too large, too many, too deep, too slow, or none: refused early, and in words."""

from __future__ import annotations

import json
import select
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

HEAD = "POST /v1/videos HTTP/1.1\r\nHost: gateway\r\nContent-Type: {}\r\n"
FORM = "multipart/form-data; boundary=b"


class Raw:
    """A connection of its own."""

    def __init__(self, gateway: Any) -> None:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answer(self) -> tuple[int, dict[str, Any]]:
        data = b""
        while piece := self._piece():
            data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            try:
                return int(head.split()[1]), json.loads(body)["error"]
            except (ValueError, IndexError):
                continue
        raise AssertionError(f"no answer, but {data!r}")

    def _piece(self) -> bytes:
        return self.socket.recv(65536)


@pytest.mark.parametrize("kind", [FORM, "application/json"])
def test_ten_gigabytes_are_refused_before_a_byte_is_read(gateway: Any, kind: str) -> None:
    with Raw(gateway) as raw:
        raw.socket.sendall((HEAD.format(kind) + f"Content-Length: {10 * 2**30}\r\n\r\n").encode())
        status, error = raw.answer()
    assert (status, error["code"]) == (413, "REQUEST_TOO_LARGE")


def test_chunks_without_end(gateway: Any) -> None:
    piece = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    with Raw(gateway) as raw:
        raw.socket.sendall((HEAD.format("application/json") + "Transfer-Encoding: chunked\r\n\r\n").encode())
        sent = 0
        with suppress(OSError):
            while sent < 1000:
                raw.socket.sendall(piece)
                sent += 1
        status, error = raw.answer()
    assert (status, error["code"]) == (413, "REQUEST_TOO_LARGE") and sent < 200


def test_a_body_that_does_not_arrive(serving: Any) -> None:
    with serving(upload_seconds=0.2) as gateway, Raw(gateway) as raw:
        raw.socket.sendall((HEAD.format(FORM) + "Content-Length: 100\r\n\r\n--b\r\n").encode())
        status, error = raw.answer()
    assert (status, error["code"]) == (499, "CANCELLED")


def test_a_file_above_the_limit(gateway: Any, http: Any) -> None:
    answer = http.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": b"\xff\xd8\xff" + b"x" * 2**20})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")


def test_ten_thousand_fields(http: Any) -> None:
    fields = {f"f{number}": (None, "x") for number in range(10_000)}
    answer = http.post("/v1/videos", files=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
    body = http.post("/v1/videos", json={f"f{number}": 1 for number in range(10_000)})
    assert (body.status_code, body.json()["error"]["param"]) == (400, "f0")


def part(name: str, value: str = "x", more: str = "") -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n{value}\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", "[" * 100_000, 400),
        ("application/json", '{"prompt":' + '{"a":' * 80 + "1" + "}" * 81, 400),
        ("application/json", "[]", 400),
        ("application/json", '"text"', 400),
        ("application/json", "", 400),
        ("application/json", '{"prompt": "x"', 400),
        ("application/json", '{"steps": NaN}', 400),
        ("application/json", '{"seed": ' + "9" * 5000 + "}", 400),
        ("application/json", '{"prompt": "\\ud800"}', 400),
        ("application/json", '{"\\ud800": 1}', 400),
        ("application/json", '{"prompt": "x", "steps": {"a": [1]}}', 400),
        ("application/x-www-form-urlencoded", "prompt=x", 400),
        ("text/plain", "x", 400),
        ("", "x", 400),
        ("multipart/form-data", "x", 400),
        ("multipart/form-data; boundary=" + "b" * 300, "x", 400),
        (FORM, "", 400),
        (FORM, "no form", 400),
        (FORM, part("prompt"), 400),
        (FORM, part("prompt") + part("prompt") + "--b--\r\n", 400),
        (FORM, "--b\r\n\r\nx\r\n--b--\r\n", 400),
        (FORM, "--b\r\nContent-Disposition: attachment\r\n\r\nx\r\n--b--\r\n", 400),
        (FORM, part("prompt", more="X-A: b\r\n" * 20) + "--b--\r\n", 400),
        (FORM, part("prompt", more=f"X-A: {'b' * 9000}\r\n") + "--b--\r\n", 400),
        (FORM, part("prompt", more="Content-Transfer-Encoding: base64\r\n") + "--b--\r\n", 400),
        (FORM, part("prompt", more="Content-Transfer-Encoding: quoted-printable\r\n") + "--b--\r\n", 400),
        (FORM, part("prompt", "x" * 140_000) + "--b--\r\n", 413),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_read(http: Any, kind: str, body: str, status: int) -> None:
    answer = http.post("/v1/videos", content=body.encode(), headers={"Content-Type": kind})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] in ("BODY_UNREADABLE", "INVALID_OPTION", "REQUEST_TOO_LARGE") and len(error["message"]) < 1000


def test_json_that_would_take_much_memory(http: Any) -> None:
    body = '{"prompt": [' + "[]," * 5000 + "0]}"
    error = http.post("/v1/videos", content=body, headers={"Content-Type": "application/json"}).json()["error"]
    assert error["code"] == "BODY_UNREADABLE" and "4096 brackets" in error["message"]


def test_a_form_that_is_not_utf8(http: Any) -> None:
    body = part("prompt").encode().replace(b"\r\nx\r\n", b"\r\n\xff\r\n") + b"--b--\r\n"
    answer = http.post("/v1/videos", content=body, headers={"Content-Type": FORM})
    assert answer.json()["error"]["code"] == "BODY_UNREADABLE"


def test_a_file_where_a_text_belongs(gateway: Any, http: Any) -> None:
    files = {"input_reference": gateway.portrait, "prompt": b"x"}
    assert http.post("/v1/videos", files=files).json()["error"]["param"] == "prompt"


def test_compressed_bodies(http: Any) -> None:
    answer = http.post("/v1/videos", content=b"x", headers={"Content-Type": FORM, "Content-Encoding": "gzip"})
    assert answer.json()["error"]["code"] == "BODY_UNREADABLE"


def test_a_tenant_has_its_share_of_memory(serving: Any) -> None:
    """One whose bodies do not arrive keeps no other's waiting, and its own wait."""
    with (
        serving(bodies=1, upload_bytes=100_000, upload_seconds=3.0) as gateway,
        Raw(gateway) as raw,
        gateway.client() as http,
    ):
        raw.socket.sendall((HEAD.format(FORM) + "Content-Length: 247000\r\n\r\n--b\r\n").encode())
        end = time.monotonic() + 5
        while not gateway.bodies.used:
            assert time.monotonic() < end
            time.sleep(0.005)
        gateway.tenant[0] = "other"
        gateway.create(http)
        assert not select.select([raw.socket], [], [], 0)[0], "its body is still waited for"
        gateway.tenant[0] = "local"
        gateway.create(http)
        assert raw.answer()[0] == 499


@pytest.mark.parametrize("encoding", ["7bit", "8BIT", "binary"])
def test_transfer_encodings_that_encode_nothing(http: Any, encoding: str) -> None:
    body = part("prompt", more=f"Content-Transfer-Encoding: {encoding}\r\n") + "--b--\r\n"
    answer = http.post("/v1/videos", content=body.encode(), headers={"Content-Type": FORM})
    assert answer.json()["error"]["param"] == "input_reference"  # it was read, and lacks this


def test_room_is_kept_for_a_stored_portrait(gateway: Any, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for one that is sent: a body of a few bytes may have the gateway read twenty million."""
    video = gateway.create(http)["id"]
    character = http.post("/v1/videos/characters", data={"name": "a"}, files={"video": gateway.portrait}).json()["id"]
    get, held = gateway.parts.store.get, []

    def watched(key: str) -> bytes:
        held.append(gateway.bodies.used)
        return bytes(get(key))

    monkeypatch.setattr(gateway.parts.store, "get", watched)
    remix = http.post(f"/v1/videos/{video}/remix", json={"prompt": "x"})
    of_character = http.post("/v1/videos", json={"prompt": "x", "character": character})
    assert (remix.status_code, of_character.status_code) == (200, 200), of_character.text
    assert len(held) == 2 and min(held) >= len(gateway.portrait)
