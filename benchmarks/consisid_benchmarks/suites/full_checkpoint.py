"""Writes a checkpoint of ConsisID-preview's size and layout with random weights, to measure exports.

`python -m consisid_benchmarks.suites.full_checkpoint FOLDER [--only transformer]`. All of it needs 23 GB of disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from consisid_benchmarks.suites import full_faces
from consisid_export.checkpoint.layout import CONFIGS, PICKLES, SAFETENSORS
from consisid_export.checkpoint.tensor_files import stored_tensors, write_tensors
from consisid_nano.untrained import configs as untrained
from consisid_nano.untrained.detector import write_detector
from consisid_nano.untrained.recogniser import write_recogniser
from consisid_nano.untrained.tokenizer import write_tokenizer
from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files.atomic import require_folder, write_file
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig

TRANSFORMER: dict[str, Any] = untrained.TRANSFORMER | {
    "LFE_depth": 10,
    "LFE_dim_head": 64,
    "LFE_ff_mult": 4,
    "LFE_id_dim": 1280,
    "LFE_num_heads": 16,
    "LFE_num_id_token": 5,
    "LFE_num_querie": 32,
    "LFE_num_scale": 5,
    "LFE_output_dim": 2048,
    "LFE_vit_dim": 1024,
    "attention_head_dim": 64,
    "cross_attn_dim_head": 128,
    "cross_attn_interval": 2,
    "cross_attn_num_heads": 16,
    "in_channels": 32,
    "max_text_seq_length": 226,
    "num_attention_heads": 48,
    "num_layers": 42,
    "out_channels": 16,
    "patch_size": 2,
    "sample_frames": 49,
    "sample_height": 60,
    "sample_width": 90,
    "text_embed_dim": 4096,
    "time_embed_dim": 512,
}
VAE: dict[str, Any] = untrained.VAE | {
    "block_out_channels": [128, 256, 256, 512],
    "latent_channels": 16,
    "layers_per_block": 3,
    "norm_num_groups": 32,
    "sample_height": 480,
    "sample_width": 720,
    "temporal_compression_ratio": 4,
}
TEXT_ENCODER: dict[str, Any] = untrained.TEXT_ENCODER | {
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
}

SHARD = 5_000_000_000
"""Maximum number of bytes of weights in one file."""

_BLOCK = 1 << 23
_STRIDE = 1_299_709  # a prime, so that tensors start at different offsets of the block

MARKER = ".random-weights"
"""In the folder: says that its checkpoint was written here."""
_WRITTEN_HERE = "weights of consisid_benchmarks.suites.full_checkpoint"

Shapes = Mapping[str, tuple[int, ...]]


def _require_free(folder: Path) -> None:
    require_folder(folder)
    marker = folder / MARKER
    written_here = marker.is_file() and marker.read_text(errors="replace") == _WRITTEN_HERE
    if any(folder.iterdir()) and not written_here:
        raise OutputUnwritable(f"{folder} has content that was not written here; choose another folder or remove it")


def write_full_checkpoint(folder: Path, *, only: str | None = None, layers: int | None = None) -> None:
    """Write the checkpoint into `folder`. Resumable: existing complete shards are kept.

    All tensors are slices of one block of normal numbers, since drawing six billion numbers takes minutes. They are
    scaled so that matrices preserve the variance of their inputs and weights of norms are around 1.

    Args:
        folder: of the checkpoint.
        only: one of `checkpoint.SAFETENSORS`: write only these weights, with all configurations.
        layers: number of transformer layers, fewer than the published 42.

    Raises `OutputUnwritable` for a folder with other content: it may be a checkpoint with weights that matter.
    """
    _require_free(folder)
    write_file(folder / MARKER, _WRITTEN_HERE.encode())
    noise = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0))
    transformer = TRANSFORMER if layers is None else TRANSFORMER | {"num_layers": layers}
    configs = {"transformer": transformer, "vae": VAE, "text_encoder": TEXT_ENCODER}
    for component, config in (configs | {"scheduler": untrained.SCHEDULER}).items():
        _write_json(folder / CONFIGS[component], config)
    for component, parts in networks.skeletons(CheckpointConfig(configs.__getitem__)).items():
        if only in (None, component):
            _write_shards(folder / SAFETENSORS[component], _shapes(parts), noise)
    if only is None:
        _write_rest(folder, noise)


def _write_rest(folder: Path, noise: Tensor) -> None:
    _write_json(folder / "model_index.json", untrained.MODEL_INDEX)
    write_tokenizer(folder / "tokenizer")
    pack = folder / "face_encoder" / "models" / "antelopev2"
    pack.mkdir(parents=True, exist_ok=True)
    write_detector(pack / "scrfd_10g_bnkps.onnx")
    write_recogniser(pack / "glintr100.onnx", 0)
    networks_by_name: dict[str, tuple[Callable[[], Shapes], torch.dtype]] = {
        "aligner": (full_faces.aligner, torch.float32),
        "parser": (full_faces.parser, torch.float32),
        "clip": (full_faces.clip, torch.float16),
    }
    for name, (shapes, dtype) in networks_by_name.items():
        tensors = {
            tensor: torch.cat(list(_values(tensor, shape, dtype, noise))).reshape(shape)
            for tensor, shape in shapes().items()
        }
        torch.save(tensors, folder / PICKLES[name])


def _shapes(parts: tuple[nn.Module, ...]) -> Shapes:
    return {name: tuple(tensor.shape) for part in parts for name, tensor in part.state_dict().items()}


def _write_shards(stem: Path, shapes: Shapes, noise: Tensor) -> None:
    """Write `stem`.safetensors, or numbered shards with their index, named as by the official library."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        size += 2 * math.prod(shape)
        if size > SHARD:
            shards.append({})
            size = 2 * math.prod(shape)
        shards[-1][name] = shape
    several = len(shards) > 1
    files: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = stem.with_name(f"{stem.name}{f'-{number:05}-of-{len(shards):05}' if several else ''}.safetensors")
        layout = {name: (torch.bfloat16, shape) for name, shape in shard.items()}
        if not _holds(file, layout):
            write_tensors(file, layout, lambda name: _values(name, shapes[name], torch.bfloat16, noise))
        files |= dict.fromkeys(shard, file.name)
    if several:
        _write_json(stem.with_name(f"{stem.name}.safetensors.index.json"), {"weight_map": files})


def _holds(file: Path, layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> bool:
    return file.exists() and {name: (t.dtype, t.shape) for name, t in stored_tensors(file).items()} == layout


def distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a random weight: matrices preserve variance, weights of norms are around 1."""
    matrix = len(shape) > 1
    mean = 1.0 if not matrix and name.endswith(("weight", "running_var")) else 0.0
    return mean, 1 / math.sqrt(math.prod(shape[1:])) if matrix else 0.1 if mean else 0.05


def _values(name: str, shape: tuple[int, ...], dtype: torch.dtype, noise: Tensor) -> Iterator[Tensor]:
    """The values of a tensor in pieces, with the distributions of `consisid_nano.untrained.weights`."""
    if name.endswith("num_batches_tracked"):
        yield torch.ones(1, dtype=torch.int64)
        return
    mean, spread = distribution(name, shape)
    start = sum(name.encode()) * _STRIDE % _BLOCK
    left = math.prod(shape)
    while left:
        piece = noise[start : start + left]
        yield (mean + spread * piece).to(dtype)
        left -= len(piece)
        start = 0


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def command(
    folder: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    only: Annotated[str | None, typer.Option("--only", help="Write only transformer, vae or text_encoder.")] = None,
) -> None:
    """Write a checkpoint of ConsisID-preview's size (23 GB) with random weights."""
    if only not in (None, *SAFETENSORS):
        raise typer.BadParameter(f"one of {', '.join(SAFETENSORS)}", param_hint="--only")
    write_full_checkpoint(folder, only=only)


if __name__ == "__main__":
    typer.run(command)
