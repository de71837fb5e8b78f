"""Writes an untrained checkpoint in the official layout, deterministically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from consisid_export.bundle.sources import files_digest
from consisid_nano.marker import MARKER, is_intact
from consisid_nano.untrained.configs import MODEL_INDEX, SCHEDULER, SIZES, Size, configs
from consisid_nano.untrained.faces import write_face_encoder
from consisid_nano.untrained.tokenizer import write_tokenizer
from consisid_nano.untrained.weights import random_weights
from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.folders import replacing
from consisid_runtime.files.ownership import write_marker
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.networks import LEARNED_POSITIONS
from consisid_runtime.options import MAX_SEED

DAMPED = "decoder.conv_out.conv.weight"

WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


def write_untrained(
    folder: Path, *, seed: int = 0, size: Size = "small", transformer: dict[str, Any] | None = None
) -> bool:
    """Write the checkpoint atomically, unless `folder` already holds an intact copy of exactly this one.

    Args:
        seed: of the random weights; face detector, aligner and parser do not depend on it.
        size: "small", or "mid" for one that is as wide as a CPU's speed is worth measuring at.
        transformer: entries to change in `transformer/config.json`, for tests of other configurations.

    Returns whether it was written. Raises `InvalidOption` for a seed outside 0 to 2⁶³ - 1 or an unknown size, and
    `OutputUnwritable`.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InvalidOption(f"seed must be a whole number from 0 to {MAX_SEED}, got {seed}")
    if size not in SIZES:
        raise InvalidOption(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    identity = {"sources": files_digest(__name__), "seed": seed, "size": size, "transformer": transformer or {}}
    if is_intact(folder, identity):
        return False
    with replacing(folder, MARKER) as fresh:
        files = configs(size)
        files["transformer"] |= transformer or {}
        _write(fresh, seed, files)
        write_marker(fresh / MARKER, identity)
    return True


def _write(folder: Path, seed: int, files: dict[str, dict[str, Any]]) -> None:
    files["text_encoder"]["vocab_size"] = write_tokenizer(folder / "tokenizer")
    generator = torch.Generator().manual_seed(seed)
    for component, parts in networks.skeletons(CheckpointConfig(files.__getitem__)).items():
        weights = {name: tensor for part in parts for name, tensor in random_weights(part, generator).items()}
        if DAMPED in weights:
            # Into the range of pixels: clipped frames would hide differences in what precedes.
            weights[DAMPED] *= 0.2
        if LEARNED_POSITIONS in weights:
            # The scale of the reference's sinusoids instead of a matrix's.
            weights[LEARNED_POSITIONS] = torch.randn(weights[LEARNED_POSITIONS].shape, generator=generator) / 2
        path = folder / component
        path.mkdir(parents=True)
        save_file(weights, path / f"{WEIGHTS[component]}.safetensors", metadata={"format": "pt"})
        _write_json(path / "config.json", files[component])
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(folder / "model_index.json", MODEL_INDEX)
    write_face_encoder(folder / "face_encoder", seed)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))
