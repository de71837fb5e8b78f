"""Writes the folder of judges, as consisid_benchmarks' `fidelity.judges` reads it, from their trained stages."""

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


def write_judges(stages: Path, folder: Path) -> None:
    """`stages` holds judge_arcface, judge_curricular, judge_person, judge_scene, judge_clip and detector."""
    faces = torch.zeros(2, 3, recogniser.EDGE, recogniser.EDGE)
    for stage, name in _RECOGNISERS.items():
        write(recogniser.trained(stages / stage, stage), faces, folder / name, "input.1", ["embedding"])
    person = attributes.trained(stages / "judge_person", attributes.PersonJudge())
    write(person, faces, folder / "person.onnx", "faces", list(ATTRIBUTES))
    write(attributes.FaceFeatures(person.trunk), faces, folder / "inception.onnx", "image", ["features"])
    scene = attributes.trained(stages / "judge_scene", attributes.SceneJudge())
    clips = torch.zeros(2, FRAMES, 3, HEIGHT, WIDTH)
    write(scene, clips, folder / "attributes.onnx", "clip", list(LABELS))
    for name, classes in (("person", ATTRIBUTES), ("attributes", LABELS)):
        (folder / f"{name}.json").write_text(json.dumps(classes, indent=1) + "\n")
    detector.write_detector(stages / "detector", folder / "detector.onnx")
    clip_judge.write(stages / "judge_clip", folder / "clip")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write_judges(arguments.stages, arguments.folder)
