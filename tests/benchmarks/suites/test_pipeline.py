from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consisid_benchmarks.suites.pipeline import FLOOR, measure, require_same_video
from consisid_benchmarks.suites.variant_processes import EAGER, Variant, count_flop
from consisid_benchmarks.suites.variants import read_features
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_measurement.harness import Mismatch
from consisid_runtime.options import Options
from consisid_runtime.plan import plan

FRAMES = np.zeros((9, 8, 8, 3), np.uint8)
STAGES = ("face", "text", "encode", "denoise", "decode")


def test_all_variants_generate_the_same_video_and_are_measured(
    untrained: Path, untrained_bundle: Path, torch_bundle_of: Callable[..., Path]
) -> None:
    paths = {Variant("ours", "onnx"): untrained_bundle, Variant("torch", "torch"): torch_bundle_of(), EAGER: untrained}
    progressed: list[str] = []
    rows = measure(
        "nano",
        paths,
        Options(steps=2, frames=9),
        rounds=1,
        threads=1,
        tflops=0.5,
        progress=lambda name, *_: progressed.append(name),
        warmup=0,
        memory=False,
    )
    variants = [variant.name for variant in paths]
    assert progressed[3:7] == [*variants, "ours"]
    assert {row.case for row in rows} == {"nano/9x128x192/2-steps"}
    assert {row.n for row in rows} == {1}
    assert all(row.median > 0 for row in rows)
    for variant in variants:
        metrics = {row.metric for row in rows if row.variant == variant}
        assert {"total_seconds", "step_seconds", "after_steps_seconds", "first_video_seconds"} <= metrics
    (floor,) = (row for row in rows if row.variant == FLOOR)
    assert floor.metric == "total_seconds"
    ours = {row.metric: row.median for row in rows if row.variant == "ours"}
    assert ours.keys() == {
        "total_seconds",
        "step_seconds",
        "after_steps_seconds",
        "first_video_seconds",
        "request_seconds",
        *(f"{stage}_seconds" for stage in STAGES),
    }
    assert ours["step_seconds"] + ours["after_steps_seconds"] < ours["total_seconds"]


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


def test_the_floor_counts_products_convolutions_and_attentions_of_each_step(
    untrained: Path, torch_bundle_of: Callable[..., Path]
) -> None:
    """A step's own FLOP, from the sizes; what else a video needs does not depend on the steps."""
    checkpoint = Checkpoint.open(untrained)
    sizes, request = checkpoint.config.transformer, plan(Options(steps=2, frames=9), checkpoint.config.geometry)
    inputs = (read_features(torch_bundle_of(), checkpoint.example().portrait, request, threads=1), "a man walks")
    two, four = (count_flop(untrained, 1, *inputs, replace(request, steps=steps)) for steps in (2, 4))
    width = sizes.num_attention_heads * sizes.attention_head_dim
    tokens = sizes.max_text_seq_length + request.latent_frames * request.rows * request.columns
    block = 2 * tokens * width * (4 + 8) * width + 4 * tokens**2 * width  # q, k, v, out; feed-forward; scores
    blocks = 2 * 2 * sizes.num_layers * block
    assert blocks <= four - two <= 1.5 * blocks, (four - two) / blocks  # beside the blocks: modulation, face attention
