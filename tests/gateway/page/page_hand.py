"""A worker that does one thing whenever a test says so."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from PIL import Image

from consisid_gateway.jobs import characters, running, workers
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.running import Owner, Result
from consisid_gateway.jobs.tables import characters as character_rows
from consisid_gateway.jobs.tables import jobs
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store
from consisid_gateway.worker.previewing import spritesheet, thumbnail
from consisid_runtime.events import Event
from consisid_runtime.video import Video

T = TypeVar("T")
FRAMES, FPS = 17, 8
FACE = {
    "faces": 1,
    "face_index": 0,
    "face_box": [120.0, 90.0, 280.0, 300.0],
    "face_score": 0.99,
    "face_found_by": "detector",
    "face_pixels": 160.0,
    "face_sharpness": 700.0,
    "face_yaw": 4.0,
    "face_hidden": [],
}
_WORKER = "hand"


def until(found: Callable[[], T | None], seconds: float = 10.0) -> T:
    """What `found` returns, once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (value := found()) is not None:
            return value
        time.sleep(0.01)
    raise AssertionError(f"nothing came within {seconds:g} s")


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Soft blobs of colour; each seed has others."""
    patches = np.random.default_rng(seed).integers(40, 220, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def video(seed: int) -> Video:
    still = np.asarray(picture(seed, 96, 64))
    frames = np.stack([np.roll(still, 2 * number, axis=1) for number in range(FRAMES)])
    options = {"seed": seed, "steps": 20, "tier": "exact", "frames": FRAMES, "width": 96, "height": 64, "fps": FPS}
    return Video(frames=frames, fps=FPS, info={"options": options, "warnings": [], "face": FACE})


class Hand:
    """Every method waits until there is something to do it with."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database, self._store = database, store

    def beat(self) -> None:
        with self._database.transaction() as connection:
            workers.beat(connection, _WORKER, _WORKER, ready=True)

    def read_face(self, **figures: Any) -> None:
        pending = self._pending()
        with self._database.transaction() as connection:
            characters.settle(connection, pending, FACE | figures)

    def refuse_face(self, code: str, message: str) -> None:
        pending = self._pending()
        with self._database.transaction() as connection:
            characters.refuse(connection, pending, code, message)

    def begin(self) -> Owner:
        """Take the oldest job that waits."""
        waits = sa.select(jobs.c.id).where(jobs.c.status == "queued").order_by(jobs.c.created_at).limit(1)
        name = until(lambda: self._first(waits))
        with self._database.transaction() as connection:
            return Owner(name, _WORKER, running.claim(connection, name, _WORKER).epoch)

    def step(self, owner: Owner, done: int, total: int, seconds_left: float | None = None) -> None:
        preview = encoded(picture(done, 96, 64), "JPEG")
        self.tell(owner, Event("denoise", done, total, None, seconds_left, preview))

    def tell(self, owner: Owner, event: Event) -> None:
        with self._database.transaction() as connection:
            running.report(connection, owner, [event])

    def finish(self, owner: Owner) -> None:
        with self._database.reading() as connection:
            options = connection.scalar(sa.select(jobs.c.options).where(jobs.c.id == owner.job)) or "{}"
        made = video(json.loads(options).get("seed", 0))
        kept = {}
        for name, content, suffix in (
            ("video", made.mp4, ".mp4"),
            ("thumbnail", thumbnail(made), ".jpg"),
            ("spritesheet", spritesheet(made), ".jpg"),
        ):
            kept[name] = names.result_of(owner.job, content, suffix)
            self._store.put(kept[name], content)
        with self._database.transaction() as connection:
            result = Result(**kept, video_bytes=len(made.mp4), info=made.info)
            running.complete(connection, owner, result, 3600.0)

    def fail(self, owner: Owner, code: str, message: str) -> None:
        with self._database.transaction() as connection:
            running.fail(connection, owner, code, message, 3600.0)

    def cancelled(self, owner: Owner) -> bool:
        """Whether the job is no longer to be made."""
        try:
            with self._database.transaction() as connection:
                running.check(connection, owner)
        except running.NotOwner:
            return True
        return False

    def _pending(self) -> str:
        pending = sa.select(character_rows.c.id).where(character_rows.c.status == "pending").limit(1)
        return until(lambda: self._first(pending))

    def _first(self, chosen: sa.Select[Any]) -> str | None:
        with self._database.reading() as connection:
            return connection.scalar(chosen)  # type: ignore[no-any-return]
