"""A checkpoint's configuration files: each value is parsed and checked in one place, and compared with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs import dit, scheduler, t5, vae
from consisid_runtime.models.configs.dit import DiTConfig, LocalExtractorConfig
from consisid_runtime.models.configs.scheduler import SchedulerConfig
from consisid_runtime.models.configs.t5 import T5Config
from consisid_runtime.models.configs.vae import VAEConfig
from consisid_runtime.plan import Geometry

FILES = {"transformer": dit.FILE, "vae": vae.FILE, "text_encoder": t5.FILE, "scheduler": scheduler.FILE}
"""Component → its configuration file."""

COMPONENTS = tuple(FILES)
"""Components with a configuration file."""


class CheckpointConfig:
    """The configuration of one checkpoint. Each file is read and parsed when it is first used.

    Args:
        read: component of `COMPONENTS` → its parsed JSON.

    Every attribute raises `CheckpointInvalid`, naming file and entries, for what this runtime cannot run.
    """

    def __init__(self, read: Callable[[str], Mapping[str, Any]]) -> None:
        self._read = read
        self._files: dict[str, Mapping[str, Any]] = {}

    def file(self, component: str) -> Mapping[str, Any]:
        """The parsed file of a component."""
        if component not in self._files:
            self._files[component] = self._read(component)
        return self._files[component]

    @cached_property
    def transformer(self) -> DiTConfig:
        return DiTConfig.from_dict(self.file("transformer"))

    @cached_property
    def local_extractor(self) -> LocalExtractorConfig:
        return LocalExtractorConfig.from_dict(self.file("transformer"))

    @cached_property
    def vae(self) -> VAEConfig:
        return VAEConfig.from_dict(self.file("vae"))

    @cached_property
    def text_encoder(self) -> T5Config:
        return T5Config.from_dict(self.file("text_encoder"))

    @property
    def scheduler(self) -> Mapping[str, Any]:
        """The parsed file; `stages.schedule` makes a schedule of it and a request's steps."""
        return self.file("scheduler")

    def problems(self) -> dict[str, list[str]]:
        """File → everything in it that this runtime cannot run; what does not fit between two files, by the second."""
        found: dict[str, list[str]] = {}
        wrong = set()
        for component, parse in (
            ("transformer", lambda: self.transformer),
            ("transformer", lambda: self.local_extractor),
            ("vae", lambda: self.vae),
            ("text_encoder", lambda: self.text_encoder),
            ("scheduler", lambda: SchedulerConfig.from_dict(self.scheduler)),
        ):
            try:
                parse()
            except CheckpointInvalid as error:
                wrong.add(component)
                said, problem = found.setdefault(FILES[component], []), str(error).removeprefix(f"{FILES[component]}: ")
                said += [] if problem in said else [problem]
        for component, checks in (("vae", self._vae_misfits), ("text_encoder", self._text_misfits)):
            if not wrong & {"transformer", component}:
                found.setdefault(FILES[component], []).extend(checks())
        return {file: problems for file, problems in found.items() if problems}

    def _vae_misfits(self) -> Iterator[str]:
        transformer, vae = self.transformer, self.vae
        for name, own, other, theirs in (
            ("latent_channels", vae.latent_channels, "out_channels", transformer.out_channels),
            (
                "temporal_compression_ratio",
                vae.temporal,
                "temporal_compression_ratio",
                transformer.temporal_compression_ratio,
            ),
        ):
            if own != theirs:
                yield f"{name} is {own}, wanted {theirs} as {other} of {dit.FILE}"
        # The decoder takes three latent frames first; a request may have up to eight times the trained frames.
        if transformer.sample_frames < (shortest := 2 * vae.temporal + 1):
            yield f"needs {shortest} frames or more: sample_frames of {dit.FILE} is {transformer.sample_frames}"

    def _text_misfits(self) -> Iterator[str]:
        width, wanted = self.text_encoder.width, self.transformer.text_embed_dim
        if width != wanted:
            yield f"d_model is {width}, wanted {wanted} as text_embed_dim of {dit.FILE}"

    @cached_property
    def geometry(self) -> Geometry:
        """The sizes this checkpoint works in."""
        transformer, vae = self.transformer, self.vae
        return Geometry(
            frames=transformer.sample_frames,
            height=transformer.sample_height * vae.spatial,
            width=transformer.sample_width * vae.spatial,
            spatial=vae.spatial,
            temporal=vae.temporal,
            patch=transformer.patch_size,
            fixed_size=transformer.use_learned_positional_embeddings,
        )
