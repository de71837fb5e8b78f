"""A server is ready once it has answered a trial, also one that was started again."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door_requests import processes
from safetensors.numpy import load_file, save_file

from consisid_runtime import Client, Options
from consisid_runtime.bundle import MANIFEST
from consisid_runtime.door.door import Door
from consisid_runtime.errors import NotFinite, ServerError
from consisid_runtime.files.ownership import manifest_digest, sha256
from consisid_runtime.serve.readiness.trial import try_out
from consisid_runtime.serve.server import Server
from consisid_runtime.stages.table import STAGES

pytestmark = pytest.mark.server

QUICK = Options(steps=1, frames=9, guidance=1.0)


@pytest.fixture
def damaged(torch_bundle_of: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle whose files are what its manifest says, and whose transformer computes no numbers."""
    folder = tmp_path / "damaged"
    shutil.copytree(torch_bundle_of(), folder)
    name = "transformer.safetensors"
    tensors = {key: np.full_like(value, np.nan) for key, value in load_file(folder / name).items()}
    save_file(tensors, folder / name)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    return folder


def test_a_bundle_that_makes_no_video_is_never_ready(damaged: Path) -> None:
    server = Server(damaged, private=True, layout="single")
    with pytest.raises(NotFinite):
        Door(server).start()
    assert not processes(server, "")


def test_a_server_without_a_door_is_tried_out_too(damaged: Path) -> None:
    server = Server(damaged, layout="ensemble")
    with pytest.raises(NotFinite):
        server.start()
    assert not processes(server, "")


def test_each_start_is_tried_out_and_leaves_nothing(
    torch_bundle_of: Callable[..., Path], portrait: bytes, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The second start fails its trial, the third does not."""
    tried: list[float] = []

    def watched(channel: Any, seconds: float) -> None:
        try_out(channel, seconds)
        tried.append(time.monotonic())
        if len(tried) == 2:
            raise ServerError("the trial request failed")

    monkeypatch.setattr("consisid_runtime.serve.server.try_out", watched)
    server = Server(torch_bundle_of(), private=True, layout="single")
    with caplog.at_level(logging.ERROR), Door(server) as door, Client(door.http_url, timeout=60) as client:
        assert len(tried) == 1 and client.ready()
        told = client.trial()
        assert told["seconds"].keys() == {stage.name for stage in STAGES} and len(told["bundle"]) == 64
        text = scrape(door)
        assert "consisid_requests_total{" not in text and 'consisid_faces_total{cached="false"} 0.0' in text
        assert "\nconsisid_request_seconds_count 0.0" in text and "\nconsisid_expected_wait_seconds 0.0" in text
        assert held(text) == 0
        assert client.generate(portrait, "a man", QUICK).info["face"]["face_cached"] is False
        assert held(scrape(door)) > 512 * 512 * 3
        os.kill(max(processes(server, "tritonserver")), signal.SIGKILL)
        while len(tried) < 3:
            before, ready = len(tried), client.ready()
            assert not (ready and before == len(tried) == 2), "it has not answered a trial"
            time.sleep(0.05)
        deadline = time.monotonic() + 10
        while not client.ready():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert tried[2] - tried[1] > 1.0, "it waits before it starts again"
        assert "start 1 of 5 failed: the trial request failed" in caplog.text
        text = scrape(door)
        assert "\nconsisid_server_starts_total 2.0" in text and held(text) == 0


def held(text: str) -> float:
    """Bytes of the cache of faces."""
    return float(re.findall(r'\nconsisid_cache_bytes\{cache="faces"[^}]*\} (\S+)', text)[0])


def scrape(door: Door) -> str:
    with urllib.request.urlopen(door.metrics_url, timeout=10) as answer:
        return str(answer.read().decode())
