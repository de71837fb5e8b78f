"""Reads a ConsisID checkpoint in the official folder's layout; reports everything missing or malformed at once.

No file is executed: JSON, safetensors, and `torch.load(weights_only=True)` for the face networks' `.pt` and `.pth`.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from consisid_export.checkpoint import change_curve, example
from consisid_export.checkpoint.contents import read_json
from consisid_export.checkpoint.example import Example
from consisid_export.checkpoint.layout import CONFIGS, DETECTOR, PICKLES, RECOGNISER, SAFETENSORS, TOKENIZER
from consisid_export.checkpoint.problems import find_problems
from consisid_export.checkpoint.shards import index_of, shard_names
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.tiers import Curve


class Checkpoint:
    """A checkpoint folder, complete when it was opened with `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = CheckpointConfig(self._read_config)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Check the whole folder, and its components against each other.

        Raises `CheckpointInvalid` naming every file with something missing, misshapen, or unknown to this version.
        """
        checkpoint = cls(Path(path))
        try:
            if not checkpoint.path.is_dir():
                raise CheckpointInvalid(f"no checkpoint folder at {path}; `consisid nano DIR` writes a small one")
            next(checkpoint.path.iterdir(), None)
        except OSError as error:
            raise CheckpointInvalid(f"{path} cannot be read: {error.strerror}; let this user read it") from error
        problems = find_problems(checkpoint)
        if problems:
            listed = "\n".join(f"  {file}: {'; '.join(said)}" for file, said in sorted(problems.items()))
            raise CheckpointInvalid(f"{path} is not a complete ConsisID checkpoint:\n{listed}")
        return checkpoint

    def _read_config(self, component: str) -> dict[str, Any]:
        return read_json(self.path / CONFIGS[component])

    def tensors(self, component: str) -> dict[str, Tensor]:
        """All tensors of a component by their names in the file, memory-mapped where the format allows."""
        if component in SAFETENSORS:
            return {name: tensor for file in self.shards(component) for name, tensor in load_file(file).items()}
        path = self.path / PICKLES[component]
        # PyTorch can only map its zip format of 2020 and later; facexlib's published files may be older.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; an unreadable file raises
            loaded = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
        if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise CheckpointInvalid("expected a mapping of names to tensors")
        return dict(loaded)

    def example(self) -> Example:
        """Portrait and prompts to run this checkpoint on: its own example, or the default for photographs."""
        return example.read(self.path)

    def curve(self) -> Curve | None:
        """How far its clean latents move over a run, where that was measured."""
        return change_curve.read(self.path)

    def files(self) -> list[Path]:
        """Every file that shapes a bundle, in a fixed order."""
        weights = [shard for component in SAFETENSORS for shard in self.shards(component)]
        others = [*CONFIGS.values(), *PICKLES.values(), TOKENIZER, DETECTOR, RECOGNISER]
        others += [change_curve.FILE] if (self.path / change_curve.FILE).is_file() else []
        return sorted({*weights, *(self.path / name for name in others), *example.files(self.path)})

    def shards(self, component: str) -> list[Path]:
        """The safetensors files of a component. Raises `CheckpointInvalid` for a malformed index."""
        index = index_of(self.path, component)
        stem = self.path / SAFETENSORS[component]
        if index is None:
            return [stem.with_name(f"{stem.name}.safetensors")]
        return [stem.parent / name for name in sorted(set(shard_names(index).values()))]
