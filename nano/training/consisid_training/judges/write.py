"""Writes the folder of judges, which `consisid_fidelity.judges` reads, from their training runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from consisid_nano.world import ATTRIBUTES, FRAMES, HEIGHT, LABELS, WIDTH
from consisid_training.faces import detector, recogniser
from consisid_training.judges import attributes, clip_judge
from consisid_training.onnx_files import write

_RECOGNISERS = {"judge_arcface": "arcface.onnx", "judge_curricular": "curricular.onnx"}


def write_judges(runs: Path, folder: Path) -> None:
    """Write `folder` from the runs judge_{arcface, curricular, person, scene, clip} and detector in `runs`."""
    faces = torch.zeros(2, 3, recogniser.EDGE, recogniser.EDGE)
    for run, name in _RECOGNISERS.items():
        write(recogniser.trained(runs / run, run), faces, folder / name, "input.1", ["embedding"])
    person = attributes.trained(runs / "judge_person", attributes.PersonJudge())
    write(person, faces, folder / "person.onnx", "faces", list(ATTRIBUTES))
    write(attributes.FaceFeatures(person.trunk), faces, folder / "inception.onnx", "image", ["features"])
    scene = attributes.trained(runs / "judge_scene", attributes.SceneJudge())
    clips = torch.zeros(2, FRAMES, 3, HEIGHT, WIDTH)
    write(scene, clips, folder / "attributes.onnx", "clip", list(LABELS))
    for name, classes in (("person", ATTRIBUTES), ("attributes", LABELS)):
        (folder / f"{name}.json").write_text(json.dumps(classes, indent=1) + "\n")
    detector.write_detector(runs / "detector", folder / "detector.onnx")
    clip_judge.write(runs / "judge_clip", folder / "clip")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of the training runs")
    parser.add_argument("folder", type=Path, help="where to write the judges")
    arguments = parser.parse_args()
    write_judges(arguments.runs, arguments.folder)
