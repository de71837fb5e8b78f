"""The whole face path beside the reference's own, full-width networks with random weights.

Opt-in: runs where facexlib, consisid-eva-clip and torchvision are installed (see CONTRIBUTING), 3 GB of memory.
"""

import importlib.util
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

MAKE = runpy.run_path(str(Path(__file__).parents[2] / "data" / "record_faces.py"))
NEEDED = ("facexlib", "consisid_eva_clip", "torchvision", "diffusers", "insightface")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.reference_faces,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore"),  # the reference's
]


def relative(ours: Tensor, theirs: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


def test_face_reader_gives_what_the_reference_gives(tmp_path: Path) -> None:
    MAKE["import_reference"]()
    from facexlib.parsing.bisenet import BiSeNet as TheirParser  # type: ignore[import-not-found]

    from consisid_runtime.models.bisenet import BiSeNet
    from consisid_runtime.models.eva_clip import EvaVision
    from consisid_runtime.models.retinaface import RetinaFace
    from consisid_runtime.options import Options
    from consisid_runtime.plan import Geometry, plan
    from consisid_runtime.stages.face.reader import FaceReader

    theirs: dict[str, Any] = {
        "aligner": MAKE["reference_aligner"](narrow=False),
        "parser": TheirParser(num_class=19).eval(),
        "clip": MAKE["reference_tower"](),
    }
    weights: dict[str, dict[str, Tensor]] = {}
    for seed, (name, network) in enumerate(theirs.items()):
        drawn = MAKE["seeded"]({key: value.shape for key, value in network.state_dict().items()}, seed)
        weights[name] = MAKE["face_heads"](drawn, scale=1e-4) if name == "aligner" else drawn
        computed = {key for key in drawn if "freqs" in key}
        network.load_state_dict({k: v for k, v in weights[name].items() if k not in computed}, strict=not computed)
    expected = MAKE["reference_faces"](*theirs.values(), tmp_path)

    seen: dict[str, Tensor] = {}
    aligner, parser, clip = (
        RetinaFace.from_tensors(weights["aligner"]),
        BiSeNet.from_tensors(weights["parser"]),
        EvaVision.from_tensors(weights["clip"]),
    )

    def extractor(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.update(inputs)
        return {"face_tokens": inputs["identity"][:, None]}

    fakes = runpy.run_path(str(Path(__file__).with_name("test_face.py")))
    engines = {
        "aligner": lambda inputs: dict(zip(("boxes", "scores", "landmarks"), aligner(inputs["image"]), strict=True)),
        "parser": lambda inputs: {"labels": parser(inputs["image"])},
        "clip": lambda inputs: dict(zip(("clip_embedding", "clip_hidden"), clip(inputs["image"]), strict=True)),
        "local_extractor": extractor,
    }
    reader = FaceReader(fakes["FakeBundle"](tmp_path, engines, clip_size=336), threads=1)
    request = plan(Options(keypoints="source"), Geometry(9, 64, 96, 8, 4, 2, False))
    face = reader(fakes["encode"](MAKE["portrait"]()), request)

    errors = {
        "arcface": relative(seen["identity"][:, :512], expected["identity"][:, :512]),
        "clip": relative(seen["identity"][:, 512:], expected["identity"][:, 512:]),
        "hidden": relative(seen["clip_hidden"], expected["hidden"]),
    }
    steps = np.abs(face.portrait.astype(int) - expected["portrait"])
    print(errors, f"portrait: {(steps > 0).mean():.2e} of values differ, by at most {steps.max()}")
    assert seen["identity"].shape == (1, 1280) and seen["clip_hidden"].shape == (5, 1, 577, 1024)
    assert max(errors.values()) < 1e-5
    assert (steps > 0).mean() < 1e-4
    np.testing.assert_array_equal(face.keypoints, expected["keypoints"])
