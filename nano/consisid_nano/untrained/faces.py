"""Writes the untrained checkpoint's `face_encoder/`, in the official files' formats."""

from __future__ import annotations

from pathlib import Path

from consisid_nano.untrained.aligner import write_aligner
from consisid_nano.untrained.clip import write_clip
from consisid_nano.untrained.detector import write_detector
from consisid_nano.untrained.parser import write_parser
from consisid_nano.untrained.recogniser import write_recogniser


def write_face_encoder(folder: Path, seed: int) -> None:
    """Write the five files; the same seed gives the same bytes.

    Detector, aligner and parser are built from a fixed prior of frontal faces; `detector` documents their limits.
    Recogniser and CLIP tower have random weights from `seed`.
    """
    pack = folder / "models" / "antelopev2"
    pack.mkdir(parents=True, exist_ok=True)
    write_detector(pack / "scrfd_10g_bnkps.onnx")
    write_recogniser(pack / "glintr100.onnx", seed)
    write_aligner(folder / "detection_Resnet50_Final.pth")
    write_parser(folder / "parsing_bisenet.pth")
    write_clip(folder / "EVA02_CLIP_L_336_psz14_s6B.pt", seed)
