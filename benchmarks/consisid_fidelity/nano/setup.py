"""Which bundle, judges and options an experiment measures, and the digest of everything that decides its figures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import consisid_export
import consisid_fidelity
import consisid_nano.world
import consisid_runtime
from consisid_fidelity.judges.judges import Judges
from consisid_fidelity.judges.person_attributes import CLASSES, NETWORK
from consisid_fidelity.nano.evaluation_set import GALLERY_SIZE
from consisid_measurement import environment
from consisid_runtime.bundle import Bundle
from consisid_runtime.files.ownership import sha256
from consisid_runtime.options import Options

SOURCES = (consisid_export, consisid_fidelity, consisid_nano.world, consisid_runtime)
"""Packages whose source code a measurement may depend on."""
UNRELATED = frozenset(
    f"consisid_fidelity/{name}.py"
    for name in (
        "cli",
        "collection",
        "collection_writer",
        "score",
        "verdict",
        "videos",
        "nano/cli",
        "nano/experiments",
        "nano/gate",
        "nano/plots",
        "nano/record",
        "nano/report",
        "nano/run",
    )
)
"""Files of these packages that no measurement depends on: changing one of them keeps the measurements valid."""
_LIBRARIES = ("torch", "onnxruntime", "diffusers", "transformers", "insightface", "numpy", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class ExperimentSetup:
    """What is measured, and with which settings.

    Attributes:
        bundle: of any engine; run on the CPU.
        checkpoint: what the bundle was exported from.
        judges: folder of judges.
        options: of every request, before a variant changes them.
        gallery: number of people in the gallery for rank-1 identification.
        frames: of each video in which faces are searched; None for all.
    """

    bundle: Path
    checkpoint: Path
    judges: Path
    options: Options = field(default_factory=Options)
    gallery: int = GALLERY_SIZE
    frames: int | None = None

    def digests(self) -> dict[str, Any]:
        """Digests of bundle, judges and source code, and library versions: together they decide every figure.

        Raises as `Bundle.open` and `Judges.open` do.
        """
        people = {name: sha256(self.judges / name) for name in (NETWORK, CLASSES) if (self.judges / name).is_file()}
        return {
            "bundle": Bundle.open(self.bundle, device="cpu").fingerprint,
            "judges": Judges.open(self.judges, "cpu").digests() | people,
            "code": _code_digest(),
            "versions": environment.versions(_LIBRARIES),
        }


def _code_digest() -> str:
    """Hex SHA-256 of the source files that a measurement may depend on."""
    content = hashlib.sha256()
    for package in SOURCES:
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            if f"{package.__name__}/{file.relative_to(folder).as_posix()}" not in UNRELATED:
                content.update(file.read_bytes())
    return content.hexdigest()
