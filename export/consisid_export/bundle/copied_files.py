"""Copies into a bundle what it takes from the checkpoint beside its modules: tokenizer, face models, positions."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.layout import DETECTOR, RECOGNISER, TOKENIZER
from consisid_export.checkpoint.skeleton import stored
from consisid_export.checkpoint.tensor_files import write_converted
from consisid_runtime.models import networks

POSITIONS = "positions.safetensors"
COPIED = {"tokenizer/spiece.model": TOKENIZER, "face/detector.onnx": DETECTOR, "face/recogniser.onnx": RECOGNISER}
"""File in a bundle → the file in the checkpoint."""


def copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the files of `COPIED`, and learned positions in float32 where the checkpoint has them."""
    for target, origin in COPIED.items():
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.path / origin, folder / target)
    if checkpoint.config.transformer.use_learned_positional_embeddings:
        positions = stored(checkpoint, "transformer")[networks.LEARNED_POSITIONS]
        write_converted(folder / POSITIONS, {"pos_embedding": positions}, torch.float32)
