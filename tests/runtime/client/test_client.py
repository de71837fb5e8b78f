"""What the client sends, what it makes of the response, and what it imports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import consisid_runtime
from consisid_runtime import AsyncClient, Client, Options
from consisid_runtime.client.transport import PATIENCE
from consisid_runtime.errors import ImageTooLarge, ImageUnreadable, InvalidOption
from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.identity import Identity

HEAVY = {"torch", "onnxruntime", "onnx", "insightface", "cv2", "av", "PIL", "gevent", "pytriton"}


class FakeTransport:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Mapping[str, Any],
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> dict[str, NDArray[Any]]:
        self.calls.append({"model": model, **inputs, **parameters, "outputs": list(outputs), "timeout": timeout})
        answer: dict[str, NDArray[Any]] = {
            "video": np.frombuffer(b"mp4", np.uint8),
            "frames": np.ones((9, 4, 4, 3), np.uint8),
            "info": np.array([json.dumps({"seed": 7}).encode()], np.object_),
        }
        return {name: answer[name] for name in outputs if name in answer}

    async def stream(self, *request: Any, **named: Any) -> AsyncIterator[dict[str, NDArray[Any]]]:
        yield await self.infer(*request, **named)

    async def ready(self, timeout: float) -> bool:
        return timeout == 9


def test_a_request() -> None:
    transport = FakeTransport()
    with Client(transport, timeout=9) as client:
        assert client.ready()
        video = client.generate(b"photo", "a man", Options(seed=7, fps=4))
    assert transport.calls == [
        {
            "model": "consisid", "image": b"photo", "prompt": "a man", "seed": 7, "fps": 4,
            "outputs": ["video", "info"], "timeout": 9,
        }
    ]  # fmt: skip
    assert (video.mp4, video.fps, video.info) == (b"mp4", 4, {"seed": 7})


def test_raw_frames_are_requested() -> None:
    transport = FakeTransport()
    video = Client(transport).generate(b"photo", "a man", raw_frames=True)
    assert transport.calls[0]["raw_frames"] is True
    assert transport.calls[0]["outputs"] == ["video", "frames", "info"]
    assert video.frames.shape == (9, 4, 4, 3)


@pytest.mark.parametrize("image", [b"photo", Identity("handle", {})])
def test_urgent_is_kserves_priority(image: bytes | Identity) -> None:
    transport = FakeTransport()
    client, other = Client(transport), AsyncClient(transport)
    for urgent in (True, False):
        client.generate(image, "a man", urgent=urgent)
        client.generate(image, "a man", urgent=urgent, on_progress=print)
        client.stream(image, "a man", urgent=urgent).video()
        asyncio.run(other.generate(image, "a man", urgent=urgent))
        asyncio.run(other.stream(image, "a man", urgent=urgent).video())
    assert [call.get("priority") for call in transport.calls] == [1] * 5 + [None] * 5


def test_an_image_can_be_a_path(tmp_path: Path) -> None:
    transport = FakeTransport()
    (tmp_path / "me.jpg").write_bytes(b"photo")
    for path in (tmp_path / "me.jpg", str(tmp_path / "me.jpg")):
        Client(transport).generate(path, "a man")
    assert [call["image"] for call in transport.calls] == [b"photo", b"photo"]


def test_a_bad_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    transport = FakeTransport()
    with pytest.raises(ImageUnreadable, match=r"missing\.jpg"):
        Client(transport).generate(tmp_path / "missing.jpg", "a man")
    with pytest.raises(ImageTooLarge, match="at most 64"):
        Client(transport).generate(bytes(MAX_BYTES + 1), "a man")
    assert not transport.calls


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e300, True, "9"])
def test_an_invalid_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidOption, match="timeout must be seconds above 0"):
        Client(FakeTransport(), timeout=timeout)


@pytest.mark.parametrize("prompt", [None, b"a man"])
def test_a_prompt_that_is_not_text_is_refused(prompt: Any) -> None:
    transport = FakeTransport()
    with pytest.raises(InvalidOption, match="prompt"):
        Client(transport).generate(b"photo", prompt)
    assert not transport.calls


def test_an_image_can_be_a_bytearray() -> None:
    transport = FakeTransport()
    Client(transport).generate(bytearray(b"photo"), "a man")
    assert type(transport.calls[0]["image"]) is bytes


def test_public_names_are_complete_and_sorted() -> None:
    assert consisid_runtime.__all__ == sorted(consisid_runtime.__all__)
    assert dir(consisid_runtime) == consisid_runtime.__all__
    for name in consisid_runtime.__all__:
        assert getattr(consisid_runtime, name) is not None
    with pytest.raises(AttributeError, match="Clint"):
        consisid_runtime.Clint  # noqa: B018


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_client_imports_nothing_heavy(url: str) -> None:
    code = f"import sys; from consisid_runtime import Client; Client({url!r}).close(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "consisid_runtime.client.client" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded}
