"""Which detections count as faces, and that no level of a portrait's pixels changes."""

import io
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.signatures import CLIP
from consisid_runtime.stages.face import reader
from consisid_runtime.stages.face.finder import FaceFinder
from consisid_runtime.stages.face.reader import FaceReader

MAKE = runpy.run_path(str(Path(__file__).parents[2] / "data" / "record_faces.py"))
SIZES = Geometry(frames=9, height=64, width=96, spatial=8, temporal=4, patch=2, fixed_size=False)
BOX = (100.0, 60.0, 260.0, 280.0)


def write_networks(folder: Path, score: float) -> tuple[Path, Path]:
    """A detector that sees one face with this score in every image, and a recogniser."""
    detector, recogniser = folder / "detector.onnx", folder / "recogniser.onnx"
    MAKE["write_detector"](detector, [(BOX, MAKE["points_in"](BOX), score)])
    MAKE["write_recogniser"](recogniser)
    return detector, recogniser


@pytest.mark.parametrize(("score", "count"), [(0.35, 0), (0.49, 0), (0.51, 1), (0.9, 1)])
def test_a_detection_counts_from_a_score_of_a_half_on(tmp_path: Path, score: float, count: int) -> None:
    finder = FaceFinder(*write_networks(tmp_path, score), "cpu", threads=1)
    assert len(finder.find(np.full((640, 640, 3), 128, np.uint8))) == count


def test_every_level_of_the_portrait_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks' numbers from 0 to 1 become levels again: level / 255 · 255 is exact in float32 for all 256."""
    write_networks(tmp_path, 0.9)
    labels = torch.ones(1, 512, 512, dtype=torch.uint8)
    heads = {"boxes": torch.zeros(1, 1, 4), "scores": torch.zeros(1, 1, 2), "landmarks": torch.zeros(1, 1, 10)}
    look = {"clip_embedding": torch.ones(1, 3), "clip_hidden": torch.zeros(5, 1, 1, 1)}
    answers: dict[str, Any] = {"aligner": heads, "parser": {"labels": labels}, "clip": look}
    answers["local_extractor"] = {"face_tokens": torch.zeros(1, 1, 1)}
    bundle: Any = SimpleNamespace(
        device="cpu",
        world=None,
        file=lambda name: tmp_path / Path(name).name,
        module=lambda name: lambda inputs: dict(answers[name]),
        signature=lambda name: CLIP.bind({"clip_size": 56}),
    )
    monkeypatch.setattr(reader, "decode", lambda *_: None)
    monkeypatch.setattr(reader, "_landmarks", lambda *_: None)
    monkeypatch.setattr(reader, "crop_transform", lambda _: np.eye(2, 3, dtype=np.float32))
    levels = np.arange(512 * 512).reshape(512, 512).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.dstack([levels] * 3)).save(file, "PNG")
    found = FaceReader(bundle, threads=1)(file.getvalue(), plan(Options(), SIZES)).portrait
    np.testing.assert_array_equal(found, np.dstack([levels] * 3))
