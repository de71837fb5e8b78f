"""What a builder is given, for one module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consisid_export.bundle.export_options import ExportOptions
    from consisid_export.bundle.modules import Calibration
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_export.resuming.folder import WorkFolder
    from consisid_runtime.events import Progress
    from consisid_runtime.plan import Geometry
    from consisid_runtime.signatures import Signature


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a builder builds with.

    Attributes:
        versions: of the distributions whose code shapes what is written.
        architectures: of the GPUs that are built for, as "sm_89"; empty where that makes no difference.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    architectures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleTask:
    """One module to write.

    Attributes:
        name, signature: of the module; the signature is bound to the checkpoint's sizes.
        geometry: of the checkpoint.
        calibration: where the precision is fp8.
        progress: called with (phase, done, total) while an engine is built.
    """

    name: str
    signature: Signature
    checkpoint: Checkpoint
    geometry: Geometry
    work: WorkFolder
    options: ExportOptions
    calibration: Calibration | None
    progress: Progress
