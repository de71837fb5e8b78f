from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from consisid_benchmarks.suites.pipeline import measure, require_same_video
from consisid_measurement.harness import Mismatch
from consisid_runtime.options import Options

FRAMES = np.zeros((9, 8, 8, 3), np.uint8)
STAGES = ("face", "text", "encode", "denoise", "decode")


def test_all_variants_generate_the_same_video_and_are_measured(
    untrained: Path, untrained_bundle: Path, torch_bundle_of: Callable[..., Path]
) -> None:
    paths = {"ours": untrained_bundle, "ours-torch-engine": torch_bundle_of(), "diffusers-eager": untrained}
    progressed: list[str] = []
    rows = measure(
        "nano",
        paths,
        Options(steps=2, frames=9),
        rounds=1,
        threads=1,
        progress=lambda name, *_: progressed.append(name),
        warmup=0,
        memory_runs=0,
    )
    assert progressed[:4] == [*paths, "ours"]
    assert {row.case for row in rows} == {"nano/9x128x192/2-steps"}
    assert {row.n for row in rows} == {1}
    assert all(row.median > 0 for row in rows)
    for variant in paths:
        assert {"total_seconds", "step_seconds"} <= {row.metric for row in rows if row.variant == variant}
    ours = {row.metric: row.median for row in rows if row.variant == "ours"}
    assert ours.keys() == {
        "total_seconds",
        "step_seconds",
        "request_seconds",
        *(f"{stage}_seconds" for stage in STAGES),
    }
    assert ours["step_seconds"] < ours["total_seconds"]


def test_variants_with_different_frames_are_refused() -> None:
    near, far = FRAMES.copy(), FRAMES.copy()
    near[3, 2, 1, 0], far[3, 2, 1, 0] = 1, 2
    require_same_video({"ours": FRAMES, "peer": near})
    with pytest.raises(Mismatch, match="peer and ours differ by up to 2 of 255"):
        require_same_video({"ours": FRAMES, "other": near, "peer": far})
    with pytest.raises(Mismatch, match="peer has frames of shape"):
        require_same_video({"ours": FRAMES, "peer": FRAMES[:-1]})
    with pytest.raises(Mismatch, match="255 of 255"):
        require_same_video({"ours": FRAMES, "peer": FRAMES - 1})
