"""Converts a checkpoint into training runs that can be continued, and writes the checkpoint after further training."""

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
"""Folders of a checkpoint that `write` replaces."""


def reopen(checkpoint: Path, runs: Path) -> None:
    """Write the states of the runs `vae`, `clip_tower`, `arcface`, `local` and `start`, from which `dit` continues.

    Raises `FileExistsError` if `runs` holds one of them with other weights.
    """
    _save(runs / "vae", _tensors(checkpoint / "vae"))
    tower = torch.load(checkpoint / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt", weights_only=True)
    _save(runs / "clip_tower", {f"tower.{name.removeprefix('visual.')}": t.float() for name, t in tower.items()})
    _save(runs / "arcface", _recogniser(checkpoint / "face_encoder" / "models" / "antelopev2" / "glintr100.onnx"))
    transformer, text = _tensors(checkpoint / "transformer"), _tensors(checkpoint / "text_encoder")
    parts = {"local_facial_extractor": "extractor", "perceiver_cross_attention": "attentions"}
    heads = {name: name.partition(".") for name in transformer}
    _save(runs / "local", {
        f"{parts[part]}.{rest}": transformer[name] for name, (part, _, rest) in heads.items() if part in parts
    })  # fmt: skip
    text["encoder.embed_tokens.weight"] = text["shared.weight"]
    both = {"transformer": transformer, "text_encoder": text}
    _save(runs / "start", {f"{part}.{name}": t for part, found in both.items() for name, t in found.items()})
    shutil.copytree(checkpoint / "tokenizer", runs / "start" / "tokenizer", dirs_exist_ok=True)


def write(checkpoint: Path, runs: Path, encoded: Path, folder: Path) -> None:
    """Copy a checkpoint with the networks that were trained further, in half precision.

    Transformer and text encoder come from `runs`/further, the VAE's decoder from `runs`/decoder if that exists, and
    `scaling_factor` from the latents in `encoded`.
    """
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(*TRAINED))
    model, autoencoder = dit.trained(runs / "further"), vae.trained(runs)
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
            raise FileExistsError(f"{folder} holds other weights than this checkpoint; choose another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"averaged": tensors}, folder / "state.pt")


def _tensors(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return {name: tensor.float() for name, tensor in load_file(file).items()}


def _recogniser(file: Path) -> dict[str, Tensor]:
    """Read the recogniser's state dict from its ONNX file.

    There each normalisation is folded into the kernel before it; here it becomes a normalisation that only adds a bias.
    """
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
        command.add_argument("checkpoint", type=Path, help="the checkpoint that training continues from")
        command.add_argument("runs", type=Path, help="folder of the training runs")
    writing.add_argument("encoded", type=Path, help="folder of the encoded training set")
    writing.add_argument("folder", type=Path, help="where to write the checkpoint")
    arguments = parser.parse_args()
    if arguments.command == "reopen":
        reopen(arguments.checkpoint, arguments.runs)
    else:
        write(arguments.checkpoint, arguments.runs, arguments.encoded, arguments.folder)
