from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consisid_fidelity.nano import worker as nano_worker
from consisid_fidelity.nano.evaluation_set import Case
from consisid_fidelity.nano.generation import GeneratedVideo
from consisid_fidelity.nano.measure import ReferenceVideo
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import Variant
from consisid_fidelity.nano.worker import Worker, load_reference
from consisid_runtime.errors import NotFinite
from consisid_runtime.plan import Geometry

CALLS: list[str] = []


class FakeGenerator:
    """Returns latents filled with the length of the variant's name; raises `NotFinite` for names in `not_finite`."""

    not_finite: tuple[str, ...] = ()

    def __init__(self, bundle: Any, checkpoint: Any, options: Any) -> None:
        self.bundle, self.pipeline = bundle, None

    def generate(self, case: Case, variant: Variant) -> GeneratedVideo:
        CALLS.append(variant.name)
        if variant.name in self.not_finite:
            raise NotFinite("not a number")
        return GeneratedVideo(
            np.full((1, 2), len(variant.name), np.float32), np.zeros((1, 2, 2, 3), np.uint8), {"seconds": 1.0}
        )


class FakeMeasurer:
    """Returns means of the latents that it is given."""

    def __init__(self, folder: Path, frames: int | None) -> None:
        pass

    def gallery(self, people: list[Case]) -> Any:
        CALLS.append("gallery")
        return np.zeros((len(people), 2), np.float32)

    def __call__(self, case: Case, frames: Any, gallery: Any, latents: Any = None, reference: Any = None) -> Any:
        if latents is None:
            return {"shape": list(frames.shape)}
        return {"own": float(latents.mean()), "reference": float(reference.latents.mean())}


GEOMETRY = Geometry(frames=9, height=32, width=48, spatial=4, temporal=4, patch=2, fixed_size=True)


class FakeBundle:
    config = SimpleNamespace(geometry=GEOMETRY)

    @classmethod
    def open(cls, *arguments: Any, **options: Any) -> FakeBundle:
        return cls()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Worker:
    CALLS.clear()
    for name, fake in (
        ("VideoGenerator", FakeGenerator),
        ("Measurer", FakeMeasurer),
        ("Bundle", FakeBundle),
        ("Checkpoint", FakeBundle),
    ):
        monkeypatch.setattr(nano_worker, name, fake)
    monkeypatch.setattr(nano_worker.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(nano_worker, "Autoencoder", lambda checkpoint, pipeline: lambda frames: frames[:1])
    return Worker(ExperimentSetup(tmp_path, tmp_path, tmp_path, gallery=3), tmp_path)


def test_a_video_is_compared_with_its_own_reference(worker: Worker, tmp_path: Path) -> None:
    rows = worker(0, ["no-local", "dpm-5-steps", "exact", "dpm-200-steps"])
    assert CALLS == ["gallery", "exact", "dpm-200-steps", "no-local", "dpm-5-steps"]
    found = {row["variant"]: row["values"] for row in rows}
    assert found["no-local"] == {"own": 8.0, "reference": 5.0, "seconds": 1.0}
    assert found["dpm-5-steps"]["reference"] == 13.0 and found["exact"]["reference"] == 5.0
    assert load_reference(tmp_path, "exact", 0).latents.mean() == 5.0


def test_a_stored_reference_is_reused(worker: Worker, tmp_path: Path) -> None:
    worker(4, ["exact"])
    CALLS.clear()
    again = Worker(ExperimentSetup(tmp_path, tmp_path, tmp_path, gallery=3), tmp_path)
    assert again(4, ["neither"])[0]["values"]["reference"] == 5.0 and CALLS == ["neither"]


def test_ground_truth_and_reconstruction_are_not_generated(worker: Worker) -> None:
    rows = worker(1, ["ground-truth", "vae-reconstruction"])
    assert [row["values"]["shape"] for row in rows] == [[9, 32, 48, 3], [1, 32, 48, 3]]
    assert CALLS == ["gallery"]


def test_a_variant_that_is_not_finite_is_recorded_and_a_reference_raises(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeGenerator, "not_finite", ("3-bit-weights",))
    assert worker(0, ["exact", "3-bit-weights"])[1]["values"] == {"finite": False}
    monkeypatch.setattr(FakeGenerator, "not_finite", ("exact",))
    with pytest.raises(NotFinite):
        worker(1, ["exact"])


def test_a_reference_is_stored_completely(worker: Worker, tmp_path: Path) -> None:
    worker(0, ["exact"])
    stored = load_reference(tmp_path, "exact", 0)
    assert (
        isinstance(stored, ReferenceVideo) and stored.frames.dtype == np.uint8 and stored.frames.shape == (1, 2, 2, 3)
    )
    assert not list(tmp_path.rglob("*.part"))
