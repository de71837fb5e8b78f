"""`consisid serve` on a link that is switched to another bundle, with SIGHUP, while clients go on sending requests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime import Client, Options, Pipeline, Video
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import CheckpointRefused, IdentityExpired
from consisid_runtime.events import Event

PROMPT = "a man reading by the sea"
QUICK = Options(seed=3, steps=2, frames=9)
SERVE = "from consisid_runtime.cli.main import main; main()"
PORTS = ("--grpc-port", "0", "--http-port", "0")

pytestmark = pytest.mark.server


@pytest.fixture
def bundles(torch_bundle_of: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Two, of checkpoints with other weights."""
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_nano.untrained.write import write_untrained

    write_untrained(tmp_path / "checkpoint", seed=1)
    export_bundle(Checkpoint.open(tmp_path / "checkpoint"), tmp_path / "another", engine="torch")
    return [torch_bundle_of(), tmp_path / "another"]


def switch(link: Path, folder: Path) -> None:
    """At once: there is a bundle at the link at every moment."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(folder)
    fresh.replace(link)


@pytest.fixture
def served(bundles: list[Path], tmp_path: Path) -> Iterator[tuple[Any, dict[str, str], Path, Path]]:
    """The process, where it listens, the link, the log."""
    link, log = tmp_path / "current", tmp_path / "log"
    switch(link, bundles[0])
    command = [sys.executable, "-c", SERVE, "serve", "--json", "--layout", "single", "--bundle", str(link), *PORTS]
    with log.open("wb") as out, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline()), link, log
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()


class Caller(threading.Thread):
    """Sends one request after the other until it is told to end."""

    def __init__(self, url: str, portrait: bytes, *, streams: bool) -> None:
        super().__init__()
        self._url, self._portrait, self._streams = url, portrait, streams
        self.videos: list[Video] = []
        self.enough = threading.Event()

    def run(self) -> None:
        with Client(self._url, timeout=60) as client:
            while not self.enough.is_set():
                if self._streams:
                    *events, video = client.stream(self._portrait, PROMPT, QUICK)
                    assert (events[0].stage, events[-1].stage) == ("queue", "decode")
                    self.videos.append(video)
                else:
                    self.videos.append(client.generate(self._portrait, PROMPT, QUICK))

    @property
    def bundles(self) -> list[str]:
        return [video.info["bundle"] for video in self.videos]


class Watch(threading.Thread):
    """Looks which servers below a process have models."""

    def __init__(self, root: int) -> None:
        super().__init__()
        self._root = root
        self.seen: list[set[int]] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(0.03):
            found = set()
            for path in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError, IndexError):
                    if "python_backend_stub" in (path / "cmdline").read_text().partition("\0")[0]:
                        server = parent(path.name)
                        if parent(parent(server)) == self._root:
                            found.add(server)
            if found and found not in self.seen:
                self.seen.append(found)


def parent(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def metrics(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_request_is_lost_when_the_bundle_changes(
    served: tuple[Any, dict[str, str], Path, Path], bundles: list[Path], portrait: bytes
) -> None:
    process, urls, link, log = served
    old, new = (Bundle.open(folder).fingerprint for folder in bundles)
    callers = [
        Caller(urls["grpc"], portrait, streams=False),
        Caller(urls["http"], portrait, streams=False),
        Caller(urls["grpc"], portrait, streams=True),
    ]
    watch = Watch(process.pid)
    with Client(urls["grpc"], timeout=60) as client:
        handle = client.identify(portrait)
        checkpoint = next(
            event.checkpoint
            for event in client.stream(portrait, PROMPT, QUICK, checkpoint_seconds=0.001)
            if isinstance(event, Event) and event.checkpoint
        )
        for thread in (*callers, watch):
            thread.start()
        try:
            until(lambda: all(caller.videos for caller in callers))
            switch(link, bundles[1])
            os.kill(process.pid, signal.SIGHUP)
            until(lambda: all(new in caller.bundles or not caller.is_alive() for caller in callers))
        finally:
            for thread in (*callers, watch):
                thread.enough.set()
            for thread in (*callers, watch):
                thread.join()
        with pytest.raises(IdentityExpired):
            client.generate(handle, PROMPT, QUICK)
        with pytest.raises(CheckpointRefused):
            list(client.stream(portrait, PROMPT, QUICK, checkpoint=checkpoint))
    expected = {
        fingerprint: Pipeline.open(folder).generate(portrait, PROMPT, QUICK).mp4
        for fingerprint, folder in zip((old, new), bundles, strict=True)
    }
    assert expected[old] != expected[new]
    for caller in callers:
        assert caller.bundles == sorted(caller.bundles, key=[old, new].index), "never back"
        assert set(caller.bundles) == {old, new}
        assert all(video.mp4 == expected[video.info["bundle"]] for video in caller.videos)
    assert [len(servers) for servers in watch.seen] == [1, 1], "one after the other"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    ended = Counter(line["outcome"] for line in lines if line["message"] == "request")
    answered = sum(len(caller.videos) for caller in callers)
    assert ended["OK"] in (answered + 1, answered + 2), "with one identified, and one left at its checkpoint"
    assert ended.total() == answered + 4
    text = metrics(urls["metrics"])
    assert f'consisid_bundle_info{{fingerprint="{new}"}} 1.0' in text
    assert 'consisid_reloads_total{outcome="OK"} 1.0' in text
