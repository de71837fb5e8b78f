"""One gateway for all tests of its interface, and a worker that takes what a test gives it for a video."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
import uvicorn
from documented import Document
from PIL import Image

from consisid_gateway.access.caller import Caller
from consisid_gateway.api.app import make_app
from consisid_gateway.api.dependencies import caller
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.reading.body import Bodies
from consisid_gateway.jobs import characters, running
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.job import Status
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.jobs.running import Owner, Result
from consisid_gateway.jobs.tables import characters as character_rows
from consisid_gateway.jobs.tables import jobs
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store
from consisid_runtime.events import Event

INFO = {
    "seed": 7,
    "bundle": "ab12",
    "options": {"seed": 7, "steps": 4, "tier": "exact", "frames": 9, "height": 48, "width": 72, "fps": 8},
    "warnings": ["the prompt was too long"],
    "face": {"box": [1, 2, 3, 4], "quality": {"blur": 0.1}},
}
FACE = {"faces": 1, "box": [8, 8, 90, 100], "quality": {"sharpness": 0.9}}


def jpeg(width: int = 96, height: int = 128) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 150, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass
class Gateway:
    """A running one.

    Attributes:
        tenant: of every caller from now on.
        folder: of the objects.
        bodies: that it reads.
        document: that every answer to `client` has to agree with.
    """

    parts: Parts
    url: str
    tenant: list[str]
    folder: Path
    bodies: Bodies
    document: Document
    portrait: bytes = field(default_factory=jpeg)
    video: bytes = bytes(range(256)) * 2500

    @property
    def database(self) -> Database:
        return self.parts.database

    def client(self, **options: Any) -> httpx2.Client:
        hooks = {"response": [self.document.check]}
        return httpx2.Client(base_url=self.url, timeout=20, event_hooks=hooks, **options)

    def create(self, client: httpx2.Client, prompt: str = "a person waves", **fields: Any) -> dict[str, Any]:
        answer = client.post("/v1/videos", data={"prompt": prompt, **fields}, files={"input_reference": self.portrait})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def claim(self, job: str) -> Owner:
        with self.database.transaction() as connection:
            return Owner(job, "worker", running.claim(connection, job, "worker").epoch)

    def tell(self, owner: Owner, *events: Event) -> None:
        with self.database.transaction() as connection:
            running.report(connection, owner, events)

    def complete(self, owner: Owner, kept: float = 3600.0, info: Mapping[str, Any] = INFO) -> None:
        keys = {}
        for name, content, suffix in (
            ("video", self.video, ".mp4"),
            ("thumbnail", self.portrait, ".jpg"),
            ("spritesheet", self.portrait + b"sheet", ".jpg"),
        ):
            keys[name] = names.result_of(owner.job, content, suffix)
            self.parts.store.put(keys[name], content)
        with self.database.transaction() as connection:
            running.complete(connection, owner, Result(**keys, video_bytes=len(self.video), info=info), kept)

    def fail(self, owner: Owner, code: str = "NO_FACE", message: str = "no face was found") -> None:
        with self.database.transaction() as connection:
            running.fail(connection, owner, code, message, 3600.0)

    def steps(self, owner: Owner, first: int, last: int, total: int = 4) -> None:
        """Steps of denoising, each told by itself."""
        for step in range(first, last + 1):
            preview = self.portrait if step % 2 == 0 else None
            self.tell(owner, Event("denoise", step, total, seconds_left=float(total - step), preview=preview))

    def finish(self, job: str) -> None:
        self.complete(self.claim(job))

    @contextmanager
    def worker(self, refuse: str | None = None) -> Iterator[None]:
        """Makes every video that is asked for from now on, and reads every face.

        Args:
            refuse: the code for every job and every face.
        """
        ending = threading.Event()

        def ids(table: sa.Table, status: str) -> set[str]:
            with self.database.reading() as connection:
                return set(connection.scalars(sa.select(table.c.id).where(table.c.status == status)))

        before = ids(jobs, Status.QUEUED)

        def work() -> None:
            while not ending.wait(0.01):
                unread = ids(character_rows, characters.Reading.PENDING)
                for job in ids(jobs, Status.QUEUED) - before:
                    owner = self.claim(job)
                    self.steps(owner, 1, 4)
                    self.complete(owner) if refuse is None else self.fail(owner, refuse)
                for each in unread:
                    with self.database.transaction() as connection:
                        if refuse is None:
                            characters.settle(connection, each, FACE)
                        else:
                            characters.refuse(connection, each, refuse, "no face was found")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def rows(self) -> int:
        with self.database.reading() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(jobs)) or 0

    def objects(self, folder: str = "jobs") -> set[str]:
        """What is below the store's folder."""
        root = self.folder / folder
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@contextmanager
def serving(**settings: Any) -> Iterator[Gateway]:
    """A gateway on a free port, on fresh rows and objects."""
    # In memory: an accepted job is on the disk before its answer, and hundreds of tests would wait for that.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield from _serving(Path(folder), settings)


def _serving(folder: Path, settings: dict[str, Any]) -> Iterator[Gateway]:
    database = Database(f"sqlite:///{folder}/jobs.sqlite")
    database.prepare()
    queue = Queue(database)
    queue.prepare()
    parts = Parts(database, queue, Store(str(folder / "objects")), **settings)
    app = make_app(parts)
    tenant = ["local"]
    app.dependency_overrides[caller] = lambda: Caller(tenant[0])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield Gateway(parts, url, tenant, folder / "objects", app.state.bodies, Document(app.openapi()))
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        queue.close()
        database.close()


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    with serving(character_seconds=5.0, upload_bytes=2**20) as found:
        yield found


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx2.Client]:
    gateway.tenant[0] = "local"
    with gateway.client() as client:
        yield client


@pytest.fixture(name="serving")
def serving_() -> Callable[..., Any]:
    """A gateway with other settings."""
    return serving


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Name, id and data of server-sent events."""
    name, number, data = "message", None, ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("id: "):
            number = line.removeprefix("id: ")
        elif line.startswith("data: "):
            data += line.removeprefix("data: ")
        elif not line and data:
            yield name, number, json.loads(data)
            name, number, data = "message", None, ""


@pytest.fixture(name="events_of")
def events_of_() -> Callable[..., Any]:
    return events_of
