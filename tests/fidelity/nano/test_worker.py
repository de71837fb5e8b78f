from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consisid_fidelity.nano import worker as nano_worker
from consisid_fidelity.nano.observe import Reference
from consisid_fidelity.nano.set import Case
from consisid_fidelity.nano.studio import Made
from consisid_fidelity.nano.variants import Variant
from consisid_fidelity.nano.worker import Subject, Worker, kept
from consisid_runtime.errors import NotFinite
from consisid_runtime.options import Geometry

MADE: list[str] = []


class Studio:
    """Latents that hold the length of the variant's name; none where it is broken."""

    broken: tuple[str, ...] = ()

    def __init__(self, bundle: Any, checkpoint: Any, options: Any) -> None:
        self.bundle, self.pipeline = bundle, None

    def make(self, case: Case, variant: Variant) -> Made:
        MADE.append(variant.name)
        if variant.name in self.broken:
            raise NotFinite("not a number")
        return Made(np.full((1, 2), len(variant.name), np.float32), np.zeros((1, 2, 2, 3), np.uint8), {"seconds": 1.0})


class Observer:
    """Says what it was shown."""

    def __init__(self, folder: Path, frames: int | None) -> None:
        pass

    def gallery(self, people: list[Case]) -> Any:
        MADE.append("gallery")
        return np.zeros((len(people), 2), np.float32)

    def __call__(self, case: Case, frames: Any, gallery: Any, latents: Any = None, reference: Any = None) -> Any:
        if latents is None:
            return {"shape": list(frames.shape)}
        return {"own": float(latents.mean()), "reference": float(reference.latents.mean())}


class Bundle:
    geometry = Geometry(frames=9, height=32, width=48, spatial=4, temporal=4, patch=2, fixed_size=True)

    @classmethod
    def open(cls, *arguments: Any, **options: Any) -> Bundle:
        return cls()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Worker:
    MADE.clear()
    for name, stand_in in (("Studio", Studio), ("Observer", Observer), ("Bundle", Bundle), ("Checkpoint", Bundle)):
        monkeypatch.setattr(nano_worker, name, stand_in)
    monkeypatch.setattr(nano_worker.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(nano_worker, "Autoencoder", lambda checkpoint, pipeline: lambda frames: frames[:1])
    return Worker(Subject(tmp_path, tmp_path, tmp_path, gallery=3), tmp_path)


def test_a_video_is_compared_with_its_own_reference(worker: Worker, tmp_path: Path) -> None:
    rows = worker(0, ["no-local", "dpm-5-steps", "exact", "dpm-200-steps"])
    assert MADE == ["gallery", "exact", "dpm-200-steps", "no-local", "dpm-5-steps"]
    found = {row["variant"]: row["values"] for row in rows}
    assert found["no-local"] == {"own": 8.0, "reference": 5.0, "seconds": 1.0}
    assert found["dpm-5-steps"]["reference"] == 13.0 and found["exact"]["reference"] == 5.0
    assert kept(tmp_path, "exact", 0).latents.mean() == 5.0


def test_a_reference_made_before_is_read_again(worker: Worker, tmp_path: Path) -> None:
    worker(4, ["exact"])
    MADE.clear()
    again = Worker(Subject(tmp_path, tmp_path, tmp_path, gallery=3), tmp_path)
    assert again(4, ["neither"])[0]["values"]["reference"] == 5.0 and MADE == ["neither"]


def test_truth_and_its_reconstruction_are_made_by_nobody(worker: Worker) -> None:
    rows = worker(1, ["ground-truth", "vae-reconstruction"])
    assert [row["values"]["shape"] for row in rows] == [[9, 32, 48, 3], [1, 32, 48, 3]]
    assert MADE == ["gallery"]


def test_what_is_not_finite_is_a_finding_but_not_of_the_reference(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Studio, "broken", ("3-bit-weights",))
    assert worker(0, ["exact", "3-bit-weights"])[1]["values"] == {"finite": False}
    monkeypatch.setattr(Studio, "broken", ("exact",))
    with pytest.raises(NotFinite):
        worker(1, ["exact"])


def test_a_reference_is_kept_whole(worker: Worker, tmp_path: Path) -> None:
    worker(0, ["exact"])
    stored = kept(tmp_path, "exact", 0)
    assert isinstance(stored, Reference) and stored.frames.dtype == np.uint8 and stored.frames.shape == (1, 2, 2, 3)
    assert not list(tmp_path.rglob("*.part"))
