"""Writes the checkpoint from its training runs, in ConsisID's official layout and in half precision."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from consisid_nano.untrained.configs import MODEL_INDEX, SCHEDULER
from consisid_nano.untrained.layers import save_tensors
from consisid_nano.world import HELD_OUT_PEOPLE, person, portrait, prompt, scene
from consisid_nano.world.scene import Scene
from consisid_training.data.clips import latent_scale
from consisid_training.faces import aligner, clip_tower, detector, parser, recogniser
from consisid_training.onnx_files import write
from consisid_training.video import dit, vae

EXAMPLE = HELD_OUT_PEOPLE + 100_000
"""The person of `example.json`, and the first number from which its scenes are searched."""


def write_checkpoint(runs: Path, encoded: Path, folder: Path) -> None:
    """Write `folder` from the runs vae, decoder, dit, arcface, clip_tower, detector, aligner and parser in `runs`.

    `encoded` holds the latents that give the VAE's `scaling_factor`. Raises `FileExistsError` if `folder` exists.
    """
    folder.mkdir(parents=True)
    scale = latent_scale(encoded)
    autoencoder = vae.build(scale)
    autoencoder.load_state_dict(vae.trained(runs).state_dict())
    autoencoder.half().save_pretrained(folder / "vae")
    shutil.copytree(runs / "dit" / "tokenizer", folder / "tokenizer")
    model = dit.trained(runs / "dit")
    model.transformer.half().save_pretrained(folder / "transformer")
    model.text_encoder.half().save_pretrained(folder / "text_encoder")
    _json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _json(folder / "model_index.json", MODEL_INDEX)
    _faces(runs, folder / "face_encoder")
    _example(folder)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)


def _faces(runs: Path, folder: Path) -> None:
    pack = folder / "models" / "antelopev2"
    pack.mkdir(parents=True)
    detector.write_detector(runs / "detector", pack / "scrfd_10g_bnkps.onnx")
    faces = torch.zeros(2, 3, recogniser.EDGE, recogniser.EDGE)
    write(recogniser.trained(runs / "arcface", "arcface"), faces, pack / "glintr100.onnx", "input.1", ["embedding"])
    aligner.write_aligner(runs / "aligner", folder / "detection_Resnet50_Final.pth")
    parser.write_parser(runs / "parser", folder / "parsing_bisenet.pth")
    tower = {name: tensor.half() for name, tensor in clip_tower.trained(runs / "clip_tower").items()}
    save_tensors(tower, folder / "EVA02_CLIP_L_336_psz14_s6B.pt")


def _example(folder: Path) -> None:
    """Write the portrait and the prompts that the exporter uses in place of a photograph."""
    Image.fromarray(portrait(person(EXAMPLE), EXAMPLE).pixels).save(folder / "example.png")
    prompts = [[prompt(where, number), number] for number, where in enumerate(_example_scenes(), 1)]
    content = {
        "world": "drawn people; photographs are outside of it",
        "licence": "Apache-2.0",
        "portrait": "example.png",
        "calibration": prompts[:3],
        "held_out": prompts[3],
    }
    _json(folder / "example.json", content)


def _example_scenes(count: int = 4) -> list[Scene]:
    """Return held-out scenes in different places."""
    found: dict[str, Scene] = {}
    for seed in itertools.count(EXAMPLE):
        where = scene(seed, held_out=True)
        found.setdefault(where.place, where)
        if len(found) == count:
            break
    return list(found.values())


def _json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("runs", type=Path, help="folder of the training runs")
    arguments.add_argument("encoded", type=Path, help="folder of the encoded training set")
    arguments.add_argument("folder", type=Path, help="where to write the checkpoint")
    given = arguments.parse_args()
    write_checkpoint(given.runs, given.encoded, given.folder)
