"""A model repository with the real ensemble's ports and no network in it, and a Triton server on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from consisid_runtime.serve.repository import ensemble_config, stage_config
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.signatures import ENSEMBLE, Port, Signature

if TYPE_CHECKING:
    from consisid_runtime.door.door import Door

_IMAGE, _PROMPT = ENSEMBLE.inputs
_VIDEO, _RAW, _INFO = ENSEMBLE.outputs
_PASSED = Port("passed", "UINT8", ("bytes",))
_SEEN = Port("seen", "BYTES", (1,))

# `video` is the image's bytes; `info` says which options each model saw; the prompt chooses what goes wrong.
_STAGES = (
    Signature("first", (_IMAGE,), (_PASSED, _SEEN)),
    Signature("second", (_PASSED, _SEEN, _PROMPT), (_VIDEO, _RAW, _INFO)),
)
_COMMON = """
import dataclasses, json, os, sys, time
import numpy as np
import consisid_runtime
from consisid_runtime.errors import BundleCorrupt, NoFace
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.serve.models import Model
from consisid_runtime.signatures import Port, Signature

def texts(value):
    return np.array([json.dumps(value).encode()], dtype=np.object_)

class Tiny(Model):
    def load(self):
        if os.environ.get("TINY_LOAD") == self.signature.name:
            raise BundleCorrupt("transformer.onnx in bundle changed after the export")
        sizes = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
        return lambda options: plan(options, sizes)
"""
_BODIES = {
    "first": """
    def run(self, inputs, plan, progress, *, raw_frames):
        return {"passed": inputs["image"], "seen": texts(dataclasses.asdict(plan.options))}
""",
    "second": """
    def run(self, inputs, plan, progress, *, raw_frames):
        prompt = inputs["prompt"][0].decode()
        if prompt == "no face":
            raise NoFace("no face in the 512×512 image; send a portrait")
        if prompt == "long":
            raise NoFace("x" * 100_000)
        if prompt == "crash":
            raise RuntimeError("/secret/path")
        if prompt.startswith("sleep"):
            end = time.monotonic() + float(prompt.split()[1])
            while time.monotonic() < end:
                time.sleep(0.01)
                progress("second", 0, 1)
        frames = np.arange(plan.frames * plan.height * plan.width * 3, dtype=np.uint8)
        frames = frames.reshape(plan.frames, plan.height, plan.width, 3)
        info = {
            "first": json.loads(inputs["seen"][0]),
            "second": dataclasses.asdict(plan.options),
            "prompt": prompt,
            "python": [sys.version, sys.prefix, np.__file__],
            "package": os.path.realpath(consisid_runtime.__file__),
            "folder": os.environ.get("TINY_FOLDER"),
            "seconds": {},
        }
        return {"video": inputs["passed"], "frames": frames if raw_frames else frames[:0], "info": texts(info)}
""",
}


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for stage in _STAGES:
        version = folder / stage.name / "1"
        version.mkdir(parents=True)
        (folder / stage.name / "config.pbtxt").write_text(stage_config(stage))
        (version / "model.py").write_text(
            f"{_COMMON}\nclass TritonPythonModel(Tiny):\n    signature = {stage!r}\n{_BODIES[stage.name]}"
        )
    (folder / ENSEMBLE.name / "1").mkdir(parents=True)
    (folder / ENSEMBLE.name / "config.pbtxt").write_text(ensemble_config(ENSEMBLE, _STAGES))
    return folder


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(tiny_repository, ready_timeout=60) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_door(tiny_repository: Path) -> Iterator[Door]:
    from consisid_runtime.door.door import Door

    with Door(TritonServer(tiny_repository, private=True, ready_timeout=60)) as door:
        yield door
