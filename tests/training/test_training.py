"""The parts that every training run uses: resumable loop, attention, ONNX files."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from consisid_training.loop.resumable import EVERY, TrainingRun, weights
from consisid_training.onnx_files import write
from consisid_training.video.attention import PlainAttention


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


def train(folder: Path, until: int, steps: int = 2 * EVERY) -> TrainingRun:
    """Train a network to predict the mean of an image, and stop at step `until` as a signal would."""
    own = network()
    run = TrainingRun(folder, own, steps=steps, rate=1e-2, adamw_rate=1e-2, seed=3, average=0.9)
    for step in run.loop():
        images = torch.from_numpy(run.rng(step).standard_normal((16, 3, 8, 8), np.float32))
        noise = 0.1 * torch.randn(16, 4)
        loss = (own(images) - images.mean((1, 2, 3))[:, None] + noise).square().mean()
        run.update(loss)
        run.stopping = step + 1 == until
    return run


def test_a_resumed_run_is_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    train(tmp_path / "whole", until=0)
    assert train(tmp_path / "cut", until=13).step == 13
    assert train(tmp_path / "cut", until=0).step == 2 * EVERY
    whole, cut = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "cut"))
    for kind in ("network", "averaged"):
        assert whole[kind].keys() == cut[kind].keys()
        for name in whole[kind]:
            assert torch.equal(whole[kind][name], cut[kind][name]), (kind, name)


def test_it_learns_and_logs(tmp_path: Path) -> None:
    train(tmp_path, until=0, steps=8 * EVERY)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(EVERY, 8 * EVERY + 1, EVERY))
    assert lines[-1]["loss"] < 0.25 * lines[0]["loss"]
    assert weights(tmp_path).keys() == network().state_dict().keys()


def test_nothing_is_saved_when_values_are_not_finite(tmp_path: Path) -> None:
    train(tmp_path, until=3)
    before = torch.load(tmp_path / "state.pt", weights_only=True)
    own = network()
    run = TrainingRun(tmp_path, own, steps=9, rate=1e-2, adamw_rate=1e-2, seed=3, average=0.9)
    loop = run.loop()
    next(loop)
    with pytest.raises(FloatingPointError, match="step 3: gradient is nan"):
        run.update(own(torch.full((2, 3, 8, 8), torch.nan)).sum())
    loop.close()
    after = torch.load(tmp_path / "state.pt", weights_only=True)
    for kind in ("network", "averaged"):
        assert all(torch.equal(after[kind][name], tensor) for name, tensor in before[kind].items()), kind


def test_a_second_process_in_the_folder_is_refused(tmp_path: Path) -> None:
    def new() -> TrainingRun:
        return TrainingRun(tmp_path, network(), steps=3, rate=1e-2, adamw_rate=1e-2, seed=3)

    first = new().loop()
    next(first)
    with pytest.raises(RuntimeError, match="another process is training in"):
        next(new().loop())
    first.close()
    assert next(new().loop()) == 0


@pytest.mark.parametrize("data_parallel", [False, True])
def test_a_signal_stops_a_single_process_and_waits_for_agreement_of_several(
    data_parallel: bool, tmp_path: Path
) -> None:
    own = network()
    run = TrainingRun(tmp_path, own, steps=9, rate=1e-2, adamw_rate=1e-2, seed=3, data_parallel=data_parallel)
    with pytest.raises(SystemExit, match="the same command resumes"):
        for step in run.loop():
            run.update(own(torch.ones(2, 3, 8, 8)).square().mean())
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            run.stopping = run.stopping or step == 5
    assert run.step == (6 if data_parallel else 3)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == run.step


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    train(tmp_path, until=0)
    before = (tmp_path / "log.jsonl").read_bytes()
    assert train(tmp_path, until=0).step == 2 * EVERY
    assert (tmp_path / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("rotated", [True, False])
def test_plain_attention_is_diffusers(rotated: bool) -> None:
    from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0

    torch.manual_seed(1)
    make: Any = Attention
    attention = make(query_dim=64, dim_head=32, heads=2, qk_norm="layer_norm", eps=1e-6, bias=True, out_bias=True)
    video, text = torch.randn(2, 24, 64), torch.randn(2, 5, 64)
    angles = torch.randn(24, 16).repeat_interleave(2, dim=1)
    rotary = (angles.cos(), angles.sin()) if rotated else None

    def run(processor: Any) -> tuple[Tensor, Tensor]:
        attention.set_processor(processor)
        found: tuple[Tensor, Tensor] = attention(video, encoder_hidden_states=text, image_rotary_emb=rotary)
        return found

    with torch.no_grad():
        for found, wanted in zip(run(PlainAttention()), run(CogVideoXAttnProcessor2_0()), strict=True):
            assert torch.linalg.norm(found - wanted) <= 1e-6 * torch.linalg.norm(wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_files_hold_halves_and_compute_in_single(tmp_path: Path) -> None:
    own = network().eval()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.copy_(parameter.half().float())
    write(own, torch.zeros(2, 3, 8, 8), tmp_path / "own.onnx", "input.1", ["out"])
    images = torch.randn(5, 3, 8, 8)
    (found,) = onnxruntime.InferenceSession(tmp_path / "own.onnx").run(None, {"input.1": images.numpy()})
    with torch.no_grad():
        wanted = own(images).numpy()
    # Folding the normalisation into the kernel adds a rounding to half precision.
    assert np.linalg.norm(found - wanted) <= 2e-3 * np.linalg.norm(wanted)
    large = [t for t in onnx.load(tmp_path / "own.onnx").graph.initializer if np.prod(t.dims) > 64]
    assert large and all(t.data_type == onnx.TensorProto.FLOAT16 for t in large)
