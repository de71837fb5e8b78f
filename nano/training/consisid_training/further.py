"""Training that goes on from a checkpoint: stages from its files, and its files again with what was trained further."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor

from consisid_training.data.clips import latent_scale
from consisid_training.faces import recogniser
from consisid_training.loop.resumable import weights
from consisid_training.video import dit, vae

TRAINED = ("transformer", "text_encoder", "vae")
"""Folders of a checkpoint that `write` takes from stages."""


def reopen(checkpoint: Path, stages: Path) -> None:
    """Write the stages `vae`, `clip_tower`, `arcface`, `local` and `start`, which `dit` can start with.

    Raises `FileExistsError` where `stages` has one of these with other weights.
    """
    _save(stages / "vae", _tensors(checkpoint / "vae"))
    tower = torch.load(checkpoint / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt", weights_only=True)
    _save(stages / "clip_tower", {f"tower.{name.removeprefix('visual.')}": t.float() for name, t in tower.items()})
    _save(stages / "arcface", _recogniser(checkpoint / "face_encoder" / "models" / "antelopev2" / "glintr100.onnx"))
    transformer, text = _tensors(checkpoint / "transformer"), _tensors(checkpoint / "text_encoder")
    parts = {"local_facial_extractor": "extractor", "perceiver_cross_attention": "attentions"}
    heads = {name: name.partition(".") for name in transformer}
    _save(stages / "local", {
        f"{parts[part]}.{rest}": transformer[name] for name, (part, _, rest) in heads.items() if part in parts
    })  # fmt: skip
    text["encoder.embed_tokens.weight"] = text["shared.weight"]
    both = {"transformer": transformer, "text_encoder": text}
    _save(stages / "start", {f"{part}.{name}": t for part, found in both.items() for name, t in found.items()})
    shutil.copytree(checkpoint / "tokenizer", stages / "start" / "tokenizer", dirs_exist_ok=True)


def write(checkpoint: Path, stages: Path, encoded: Path, folder: Path) -> None:
    """Copy a checkpoint, with the transformer and the text encoder of `stages`/further and, where there is one, the
    decoder of `stages`/decoder, in half precision; the scale of latents is that of `encoded`."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(*TRAINED))
    model, autoencoder = dit.trained(stages / "further"), vae.trained(stages)
    parts = {"transformer": model.transformer, "text_encoder": model.text_encoder, "vae": autoencoder}
    for name, network in parts.items():
        network.half().save_pretrained(folder / name)
        config = json.loads((checkpoint / name / "config.json").read_text())
        if name == "vae":
            config["scaling_factor"] = latent_scale(encoded)
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)


def _save(folder: Path, tensors: dict[str, Tensor]) -> None:
    if (folder / "state.pt").exists():
        found = weights(folder)
        if found.keys() != tensors.keys() or not all(torch.equal(found[name], tensors[name]) for name in found):
            raise FileExistsError(f"{folder} holds other weights than this checkpoint's; take another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"averaged": tensors}, folder / "state.pt")


def _tensors(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return {name: tensor.float() for name, tensor in load_file(file).items()}


def _recogniser(file: Path) -> dict[str, Tensor]:
    """The file has each normalisation folded into the kernel before it: here it becomes one that only adds."""
    stored = {t.name: np.asarray(numpy_helper.to_array(t), np.float32) for t in onnx.load(file).graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.tensor(stored[name if name in stored else f"{name}_half"])

    network: Any = recogniser.Recogniser(recogniser.RECIPES["arcface"])
    found: dict[str, Tensor] = network.state_dict()
    for level, halving in enumerate(network.halvings):
        bias = tensor(f"halvings.{level}.0.weight_bias")
        found[f"halvings.{level}.0.weight"] = tensor(f"halvings.{level}.0.weight")
        found[f"halvings.{level}.1.weight"] = torch.full_like(bias, (1 + halving[1].eps) ** 0.5)
        found[f"halvings.{level}.1.bias"] = bias
    for name in ("places.weight", "places.bias", "out.weight", "out.bias"):
        found[name] = tensor(name)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reopening, writing = commands.add_parser("reopen"), commands.add_parser("write")
    for command in (reopening, writing):
        command.add_argument("checkpoint", type=Path)
        command.add_argument("stages", type=Path)
    writing.add_argument("encoded", type=Path)
    writing.add_argument("folder", type=Path, help="where the checkpoint goes")
    arguments = parser.parse_args()
    if arguments.command == "reopen":
        reopen(arguments.checkpoint, arguments.stages)
    else:
        write(arguments.checkpoint, arguments.stages, arguments.encoded, arguments.folder)
