"""The options of an export: checked against the table of builders, and as the manifest records them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consisid_export.bundle.builders import BUILDERS, Builder, listed, taking
from consisid_runtime.engines.table import PRECISIONS
from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.ownership import sha256

PLUGIN_MODULES = ("dit_step",)
"""Modules whose attention plugins compute."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export was asked for. Raises `InvalidOption` for what does not exist or does not go together.

    Attributes:
        engine: name of a builder.
        precision: one of `PRECISIONS`.
        calibration: for fp8, the ranges of an earlier export instead of runs of the checkpoint.
        copy: copy the checkpoint's weights instead of linking them.
        dynamic: TensorRT engines for videos of other sizes than the checkpoint's.
        plugins: TensorRT engines whose step computes attention by this project's kernels.
    """

    engine: str = "onnx"
    precision: str = "fp32"
    calibration: Path | None = None
    copy: bool = False
    dynamic: bool = False
    plugins: bool = False

    def __post_init__(self) -> None:
        if self.engine not in BUILDERS:
            raise InvalidOption(f"engine must be one of {', '.join(BUILDERS)}, got {self.engine!r}")
        if self.precision not in PRECISIONS:
            raise InvalidOption(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.precision not in self.builder.precisions:
            others = [name for name, builder in BUILDERS.items() if self.precision in builder.precisions]
            raise InvalidOption(f"engine {self.engine!r} has no {self.precision}; {listed(tuple(others))} has")
        for option in ("calibration", "dynamic", "plugins"):
            if getattr(self, option) and self.precision not in self.builder.options.get(option, ()):
                raise InvalidOption(
                    f"{option}: for engine {taking(option)}, in {listed(_precisions(option))}; got engine "
                    f"{self.engine!r} in {self.precision}"
                )

    @property
    def builder(self) -> Builder:
        return BUILDERS[self.engine]

    def builder_of(self, module: str) -> Builder:
        """The builder that writes a module."""
        return BUILDERS[self.builder.others.get(module, self.engine)]

    @property
    def calibrates(self) -> bool:
        """Whether ranges of the checkpoint's own runs shape what is written."""
        return self.precision == "fp8" and "calibration" in self.builder.options

    def plugins_in(self, module: str) -> bool:
        """Whether the module computes by plugins."""
        return self.plugins and module in PLUGIN_MODULES

    def record(self) -> dict[str, Any]:
        """The manifest's `options`. Raises `InvalidOption` where the calibration file cannot be read."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "copy": self.copy,
            "dynamic": self.dynamic,
            "plugins": self.plugins,
            "calibration": self._calibration(),
        }

    def _calibration(self) -> str | None:
        if self.calibration is None:
            return None
        try:
            if self.calibration.is_file():
                return sha256(self.calibration)
        except OSError as error:
            raise InvalidOption(f"calibration {self.calibration} cannot be read: {error.strerror}") from error
        raise InvalidOption(f"calibration {self.calibration} is not there; it is a file of an fp8 bundle")


def _precisions(option: str) -> tuple[str, ...]:
    """The precisions in which some builder takes an option."""
    taken = {name for builder in BUILDERS.values() for name in builder.options.get(option, ())}
    return tuple(name for name in PRECISIONS if name in taken)
