"""Derives the sizes that an engine is built for from a `Geometry`: a range for every symbol of `signatures.DYNAMIC`.

A shape's range is computed from the ranges of its symbols, so that two tensors which share a symbol never disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from consisid_runtime.plan import Geometry
from consisid_runtime.signatures import MODULATION_BLOCK, Port, Signature, Size

_PHOTOGRAPH = 1024  # its long edge, as `signatures.DYNAMIC` has it
_FIRST_CHUNK = 3  # latent frames that the VAE decodes first, hence the fewest of a video


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the greatest size accepted, and the one to tune for. Raises `ValueError` when out of order."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"a range must rise from at least 1, got {self.minimum}, {self.optimum}, {self.maximum}")

    @classmethod
    def fixed(cls, size: int) -> Range:
        return cls(size, size, size)

    @property
    def static(self) -> bool:
        return self.minimum == self.maximum


Profile = Mapping[str, Range]
"""Symbol → its range: one optimisation profile of an engine."""


def profiles(geometry: Geometry, *, dynamic: bool = False) -> tuple[Profile, ...]:
    """The profiles of a bundle's engines: one with guidance and one without, each with fixed sizes unless `dynamic`.

    What varies at any size of the video keeps its range: the photograph, and the steps left at the end of a run.

    Args:
        dynamic: accept any video up to twice the checkpoint's frames, either way up; it is tuned for its own size.
    """
    cell = geometry.patch
    frames = (geometry.frames - 1) // geometry.temporal + 1
    rows, columns = (edge // (geometry.spatial * cell) for edge in (geometry.height, geometry.width))
    video = {"frames": Range.fixed(frames), "rows": Range.fixed(rows), "columns": Range.fixed(columns)}
    if dynamic:
        video["frames"] = Range(_FIRST_CHUNK, frames, 2 * frames - 1)
        if not geometry.fixed_size:
            long = max(rows, columns)
            video |= {"rows": Range(1, rows, long), "columns": Range(1, columns, long)}
    latent = {f"latent_{name}": _scaled(video[of], cell) for name, of in (("height", "rows"), ("width", "columns"))}
    photograph = Range(1, _PHOTOGRAPH, _PHOTOGRAPH)
    always = {
        **video,
        **latent,
        "steps": Range(1, MODULATION_BLOCK, MODULATION_BLOCK),
        "image_height": photograph,
        "image_width": photograph,
    }
    # No module has both symbols, so two profiles cover all four cases.
    return tuple(
        {**always, "branches": Range.fixed(branches), "images": Range.fixed(images)}
        for branches, images in ((2, 1), (1, 2))
    )


def shape_range(port: Port, profile: Profile) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The least, the tuned and the greatest shape of a port. Raises `KeyError` naming a symbol without a range."""
    extents = [_extent(size, profile) for size in port.shape]
    return (
        tuple(extent.minimum for extent in extents),
        tuple(extent.optimum for extent in extents),
        tuple(extent.maximum for extent in extents),
    )


def relevant(signature: Signature, profiles: tuple[Profile, ...]) -> tuple[dict[str, Range], ...]:
    """Each profile without the symbols that the module's inputs lack; those that become equal are given once."""
    symbols = sorted({s for port in signature.inputs for size in port.shape for s in _symbols(size)})
    kept = [{symbol: profile[symbol] for symbol in symbols} for profile in profiles]
    return tuple(profile for i, profile in enumerate(kept) if profile not in kept[:i])


def _extent(size: Size, profile: Profile) -> Range:
    number = 1 if isinstance(size, str) else size
    ranges = [profile[symbol] for symbol in _symbols(size)]
    if isinstance(size, str):
        number = math.prod(int(factor) for factor in size.split("*") if factor.isdigit())
    return Range(
        number * math.prod(r.minimum for r in ranges),
        number * math.prod(r.optimum for r in ranges),
        number * math.prod(r.maximum for r in ranges),
    )


def _symbols(size: Size) -> list[str]:
    return [] if isinstance(size, int) else [factor for factor in size.split("*") if not factor.isdigit()]


def _scaled(extent: Range, factor: int) -> Range:
    return Range(factor * extent.minimum, factor * extent.optimum, factor * extent.maximum)
