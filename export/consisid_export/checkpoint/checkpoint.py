"""Reads a ConsisID checkpoint in the official folder's layout; reports everything missing or malformed at once.

No file is executed: JSON, safetensors, and `torch.load(weights_only=True)` for the face networks' `.pt` and `.pth`.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from consisid_export.checkpoint import example
from consisid_export.checkpoint.example import Example
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.files.json_file import read_json
from consisid_runtime.models import networks
from consisid_runtime.models.config import CheckpointConfig

CONFIGS = {
    "transformer": "transformer/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
SAFETENSORS = {
    "transformer": "transformer/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
}
PICKLES = {
    "aligner": "face_encoder/detection_Resnet50_Final.pth",
    "parser": "face_encoder/parsing_bisenet.pth",
    "clip": "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt",
}
TOKENIZER = "tokenizer/spiece.model"
DETECTOR = "face_encoder/models/antelopev2/scrfd_10g_bnkps.onnx"
RECOGNISER = "face_encoder/models/antelopev2/glintr100.onnx"
_ONNX_OUTPUTS = {DETECTOR: 9, RECOGNISER: 1}


class Checkpoint:
    """A checkpoint folder, complete when it was opened with `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = CheckpointConfig(self._read_config)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Check the whole folder. Raises `CheckpointInvalid` naming every file with something missing or misshapen."""
        checkpoint = cls(Path(path))
        if not checkpoint.path.is_dir():
            raise CheckpointInvalid(f"no checkpoint folder at {path}; `consisid nano DIR` writes a small one")
        problems = checkpoint._problems()
        if problems:
            listed = "\n".join(f"  {file}: {problem}" for file, problem in problems.items())
            raise CheckpointInvalid(f"{path} is not a complete ConsisID checkpoint:\n{listed}")
        return checkpoint

    def _read_config(self, component: str) -> dict[str, Any]:
        config: dict[str, Any] = read_json(self.path / CONFIGS[component])
        return config

    def tensors(self, component: str) -> dict[str, Tensor]:
        """All tensors of a component by their names in the file, memory-mapped where the format allows."""
        if component in SAFETENSORS:
            return {name: tensor for file in self._shards(component) for name, tensor in load_file(file).items()}
        path = self.path / PICKLES[component]
        # PyTorch can only map its zip format of 2020 and later; facexlib's published files may be older.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; an unreadable file raises
            loaded = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
        if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise CheckpointInvalid(f"{PICKLES[component]}: expected a mapping of names to tensors")
        return dict(loaded)

    def example(self) -> Example:
        """Portrait and prompts to run this checkpoint on: its own example, or the default for photographs."""
        return example.read(self.path)

    def files(self) -> list[Path]:
        """Every file that the export reads, in a fixed order."""
        weights = [shard for component in SAFETENSORS for shard in self._shards(component)]
        others = [*CONFIGS.values(), *PICKLES.values(), TOKENIZER, DETECTOR, RECOGNISER]
        return sorted({*weights, *(self.path / name for name in others), *example.files(self.path)})

    def _shards(self, component: str) -> list[Path]:
        stem = self.path / SAFETENSORS[component]
        index = stem.with_name(stem.name + ".safetensors.index.json")
        if index.is_file():
            names = read_json(index)["weight_map"].values()
            return [stem.parent / name for name in sorted(set(names))]
        return [stem.with_name(stem.name + ".safetensors")]

    def _problems(self) -> dict[str, str]:
        found: dict[str, str] = {}

        def attempt(file: str, work: Callable[[], None]) -> None:
            try:
                work()
            except FileNotFoundError as error:
                found[str(Path(error.filename or file).relative_to(self.path)) if error.filename else file] = "missing"
            except (CheckpointInvalid, SafetensorError, pickle.UnpicklingError, ValueError, KeyError) as error:
                found[file] = _one_line(error)
            except (RuntimeError, EOFError, OSError) as error:
                found[file] = f"cannot be read ({_one_line(error)})"

        for file in CONFIGS.values():
            attempt(file, lambda file=file: _require_mapping(self.path / file))  # type: ignore[misc]
        for file in (TOKENIZER, DETECTOR, RECOGNISER):
            attempt(file, lambda file=file: _require_file(self.path / file))  # type: ignore[misc]
        for file, outputs in _ONNX_OUTPUTS.items():
            if file not in found:
                attempt(file, lambda file=file, outputs=outputs: _require_outputs(self.path / file, outputs))  # type: ignore[misc]
        attempt(example.FILE, lambda: _require_example(self.path))
        for component in (*SAFETENSORS, *PICKLES):
            file = PICKLES.get(component) or f"{SAFETENSORS[component]}.safetensors"
            attempt(file, lambda component=component: self._require_files(component))  # type: ignore[misc]
            configured = CONFIGS.get(component) not in found
            if configured and file not in found:
                attempt(file, lambda component=component: self._require_shapes(component))  # type: ignore[misc]
        return dict(sorted(found.items()))

    def _require_files(self, component: str) -> None:
        for shard in self._shards(component) if component in SAFETENSORS else [self.path / PICKLES[component]]:
            _require_file(shard)

    def _require_shapes(self, component: str) -> None:
        for module, owner in networks.COMPONENTS.items():
            if owner == component:
                networks.load(module, self, None)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(2, "missing", str(path))


def _require_mapping(path: Path) -> None:
    _require_file(path)
    if not isinstance(read_json(path), dict):
        raise ValueError("expected a JSON object")


def _require_example(folder: Path) -> None:
    example.read(folder)


def _require_outputs(path: Path, outputs: int) -> None:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError has no public name
        raise ValueError(f"not an ONNX file ({_one_line(error)})") from error
    if len(graph.output) != outputs:
        raise ValueError(f"has {len(graph.output)} outputs, expected {outputs}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
