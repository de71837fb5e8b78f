"""Makes and measures the videos of one case: what each of several processes does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import consisid_export
import consisid_fidelity
import consisid_nano.world
import consisid_runtime
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_fidelity.judges.autoencoder import Autoencoder
from consisid_fidelity.judges.judges import Judges
from consisid_fidelity.nano.observe import Gallery, Observer, Reference, Values
from consisid_fidelity.nano.person_judge import CLASSES, NETWORK
from consisid_fidelity.nano.set import GALLERY, Case, case, cases
from consisid_fidelity.nano.studio import Studio
from consisid_fidelity.nano.variants import KEPT, RECONSTRUCTED, TRUTH, VARIANTS
from consisid_measurement import environment
from consisid_runtime.bundle import Bundle, sha256
from consisid_runtime.errors import NotFinite
from consisid_runtime.options import Options

_UNRELATED = {
    "cli.py", "compare.py", "experiments.py", "gate.py", "paper.py", "plots.py", "record.py", "report.py", "run.py",
    "score.py", "verdict.py",
}  # fmt: skip
"""Files here that change no measurement."""
_LIBRARIES = ("torch", "onnxruntime", "diffusers", "transformers", "insightface", "numpy", "opencv-python-headless")
_GALLERY_FILE = "gallery.npy"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined, and how.

    Attributes:
        bundle: any engine's, run on the CPU. checkpoint: what it was made from. judges: folder of judges.
        options: of every request, before a variant changes them.
        gallery: people among whom one is to be identified.
        frames: of each video that faces are looked for in; None for all.
    """

    bundle: Path
    checkpoint: Path
    judges: Path
    options: Options = field(default_factory=Options)
    gallery: int = GALLERY
    frames: int | None = None

    def digests(self) -> dict[str, Any]:
        """What decides every figure: bundle, judges, code. Raises as `Bundle.open` and `Judges.open` do."""
        people = {name: sha256(self.judges / name) for name in (NETWORK, CLASSES) if (self.judges / name).is_file()}
        return {
            "bundle": Bundle.open(self.bundle, device="cpu").fingerprint,
            "judges": Judges.open(self.judges, "cpu").digests() | people,
            "code": _code(),
            "versions": environment.versions(_LIBRARIES),
        }


class Worker:
    """One process's networks."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        torch.set_num_threads(1)
        self._folder = folder
        self._observer = Observer(subject.judges, subject.frames)
        self._gallery = gallery(self._observer, subject, folder)
        checkpoint = Checkpoint.open(subject.checkpoint)
        self._studio = Studio(Bundle.open(subject.bundle, device="cpu", threads=1), checkpoint, subject.options)
        self._checkpoint = subject.checkpoint

    @cached_property
    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self._checkpoint, self._studio.pipeline)

    def __call__(self, number: int, variants: Iterable[str]) -> list[dict[str, Any]]:
        """Rows of one case, in the variants' order: those that others are compared with come first."""
        one, made = case(number), dict[str, Reference]()
        return [
            {"variant": name, "case": number, "values": self._measure(one, name, made)}
            for name in sorted(variants, key=lambda name: name not in KEPT)
        ]

    def _measure(self, one: Case, name: str, made: dict[str, Reference]) -> Values:
        if name in (TRUTH, RECONSTRUCTED):
            frames = one.drawn(self._studio.bundle.config.geometry)
            return self._observer(one, self._autoencoder(frames) if name == RECONSTRUCTED else frames, self._gallery)
        variant = VARIANTS[name]
        try:
            video = self._studio.make(one, variant)
        except NotFinite:
            if name in KEPT:
                raise
            return {"finite": False}
        if name in KEPT:
            made[name] = self._keep(one, name, Reference(video.latents, video.frames))
        reference = made.get(variant.reference) or kept(self._folder, variant.reference, one.number)
        return self._observer(one, video.frames, self._gallery, video.latents, reference) | video.seconds

    def _keep(self, one: Case, name: str, video: Reference) -> Reference:
        path = _path(self._folder, name, one.number)
        path.parent.mkdir(exist_ok=True)
        with path.with_suffix(".part").open("wb") as file:
            np.savez_compressed(file, latents=video.latents, frames=video.frames)
        path.with_suffix(".part").replace(path)
        return video


def kept(folder: Path, name: str, number: int) -> Reference:
    """The video of one of the variants `KEPT`, once it has been measured."""
    with np.load(_path(folder, name, number)) as stored:
        return Reference(stored["latents"], stored["frames"])


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / name / f"{number}.npz"


def gallery(observer: Observer, subject: Subject, folder: Path) -> Gallery:
    """Embeddings of the people to tell apart [N, D], read once."""
    path = folder / _GALLERY_FILE
    if not path.is_file():
        found = observer.gallery(cases(subject.gallery))
        with path.with_suffix(".part").open("wb") as file:
            np.save(file, found)
        path.with_suffix(".part").replace(path)
    return np.asarray(np.load(path), np.float32)


_WORKER: Worker | None = None


def start(subject: Subject, folder: Path) -> None:
    global _WORKER
    _WORKER = Worker(subject, folder)


def work(number: int, variants: list[str]) -> list[dict[str, Any]]:
    assert _WORKER is not None
    return _WORKER(number, variants)


def _code() -> str:
    """Hex SHA-256 of the sources that a measurement may depend on."""
    content = hashlib.sha256()
    whole = (consisid_fidelity, consisid_nano.world, consisid_runtime, consisid_export)
    for folder in (Path(package.__path__[0]) for package in whole):
        for file in sorted(folder.rglob("*.py")):
            if file.name not in _UNRELATED:
                content.update(file.read_bytes())
    return content.hexdigest()
