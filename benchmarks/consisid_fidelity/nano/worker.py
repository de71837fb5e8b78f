"""Generates and measures the videos of one case; runs in each of the worker processes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_fidelity.judges.autoencoder import Autoencoder
from consisid_fidelity.nano.evaluation_set import Case, case, cases
from consisid_fidelity.nano.generation import VideoGenerator
from consisid_fidelity.nano.measure import Gallery, Measurements, Measurer, ReferenceVideo
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import RECONSTRUCTED, REFERENCES, TRUTH, VARIANTS
from consisid_runtime.allocator import keep_freed_memory
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import NotFinite
from consisid_runtime.files.atomic import replacing_file

_GALLERY_FILE = "gallery.npy"


class Worker:
    """The bundle, the judges and the gallery of one process, loaded once.

    Args:
        setup: what to measure.
        folder: holds the reference videos and the gallery.
    """

    def __init__(self, setup: ExperimentSetup, folder: Path) -> None:
        torch.set_num_threads(1)
        self._folder = folder
        self._measurer = Measurer(setup.judges, setup.frames)
        self._gallery = load_gallery(self._measurer, setup, folder)
        checkpoint = Checkpoint.open(setup.checkpoint)
        self._generator = VideoGenerator(Bundle.open(setup.bundle, device="cpu", threads=1), checkpoint, setup.options)
        self._checkpoint = setup.checkpoint

    @cached_property
    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self._checkpoint, self._generator.pipeline)

    def __call__(self, number: int, variants: Iterable[str]) -> list[dict[str, Any]]:
        """Measure variants of one case, reference variants first.

        Returns a row for each variant: {"variant": name, "case": number, "values": measurements}.
        """
        one, references = case(number), dict[str, ReferenceVideo]()
        return [
            {"variant": name, "case": number, "values": self._measure(one, name, references)}
            for name in sorted(variants, key=lambda name: name not in REFERENCES)
        ]

    def _measure(self, one: Case, name: str, references: dict[str, ReferenceVideo]) -> Measurements:
        if name in (TRUTH, RECONSTRUCTED):
            frames = one.drawn(self._generator.bundle.config.geometry)
            return self._measurer(one, self._autoencoder(frames) if name == RECONSTRUCTED else frames, self._gallery)
        variant = VARIANTS[name]
        try:
            video = self._generator.generate(one, variant)
        except NotFinite:
            if name in REFERENCES:
                raise
            return {"finite": False}
        if name in REFERENCES:
            references[name] = ReferenceVideo(video.latents, video.frames)
            self._store(one, name, references[name])
        reference = references.get(variant.reference) or load_reference(self._folder, variant.reference, one.number)
        return self._measurer(one, video.frames, self._gallery, video.latents, reference) | video.seconds

    def _store(self, one: Case, name: str, video: ReferenceVideo) -> None:
        path = _reference_path(self._folder, name, one.number)
        path.parent.mkdir(exist_ok=True)
        with replacing_file(path) as fresh, fresh.open("wb") as file:
            np.savez_compressed(file, latents=video.latents, frames=video.frames)


def load_reference(folder: Path, name: str, number: int) -> ReferenceVideo:
    """The stored video of a variant in `REFERENCES`. Raises `FileNotFoundError` before it has been measured."""
    with np.load(_reference_path(folder, name, number)) as stored:
        return ReferenceVideo(stored["latents"], stored["frames"])


def _reference_path(folder: Path, name: str, number: int) -> Path:
    return folder / name / f"{number}.npz"


def load_gallery(measurer: Measurer, setup: ExperimentSetup, folder: Path) -> Gallery:
    """Embeddings of the people in the gallery [N, D], computed once and stored in `folder`."""
    path = folder / _GALLERY_FILE
    if not path.is_file():
        found = measurer.gallery(cases(setup.gallery))
        with replacing_file(path) as fresh, fresh.open("wb") as file:
            np.save(file, found)
    return np.asarray(np.load(path), np.float32)


_WORKER: Worker | None = None


def start_worker(setup: ExperimentSetup, folder: Path) -> None:
    """Load this process's worker."""
    global _WORKER
    keep_freed_memory()  # as the command that started this process
    _WORKER = Worker(setup, folder)


def measure_case(number: int, variants: list[str]) -> list[dict[str, Any]]:
    """`Worker.__call__` of this process's worker."""
    assert _WORKER is not None
    return _WORKER(number, variants)
