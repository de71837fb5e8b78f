"""What every training stage stands on: resuming, the optimisers, the attention, the files."""

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

from consisid_training.loop.resumable import EVERY, Stage, weights
from consisid_training.onnx_files import write
from consisid_training.video.attention import PlainAttention


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


def train(folder: Path, until: int, steps: int = 2 * EVERY) -> Stage:
    """Learn the mean of an image's channels, stopping at a step as a signal would."""
    own = network()
    stage = Stage(folder, own, steps=steps, rate=1e-2, small_rate=1e-2, seed=3, average=0.9)
    for step in stage.loop():
        images = torch.from_numpy(stage.rng(step).standard_normal((16, 3, 8, 8), np.float32))
        noise = 0.1 * torch.randn(16, 4)
        loss = (own(images) - images.mean((1, 2, 3))[:, None] + noise).square().mean()
        stage.update(loss)
        stage.stopping = step + 1 == until
    return stage


def test_a_stopped_run_that_goes_on_ends_where_one_that_was_not_stopped_ends(tmp_path: Path) -> None:
    train(tmp_path / "whole", until=0)
    assert train(tmp_path / "cut", until=13).step == 13
    assert train(tmp_path / "cut", until=0).step == 2 * EVERY
    whole, cut = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "cut"))
    for kind in ("network", "averaged"):
        assert whole[kind].keys() == cut[kind].keys()
        for name in whole[kind]:
            assert torch.equal(whole[kind][name], cut[kind][name]), (kind, name)


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    train(tmp_path, until=0, steps=8 * EVERY)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(EVERY, 8 * EVERY + 1, EVERY))
    assert lines[-1]["loss"] < 0.25 * lines[0]["loss"]
    assert weights(tmp_path).keys() == network().state_dict().keys()


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    train(tmp_path, until=3)
    before = torch.load(tmp_path / "state.pt", weights_only=True)
    own = network()
    stage = Stage(tmp_path, own, steps=9, rate=1e-2, small_rate=1e-2, seed=3, average=0.9)
    loop = stage.loop()
    next(loop)
    with pytest.raises(FloatingPointError, match="step 3: gradient is nan"):
        stage.update(own(torch.full((2, 3, 8, 8), torch.nan)).sum())
    loop.close()
    after = torch.load(tmp_path / "state.pt", weights_only=True)
    for kind in ("network", "averaged"):
        assert all(torch.equal(after[kind][name], tensor) for name, tensor in before[kind].items()), kind


def test_two_runs_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    def stage() -> Stage:
        return Stage(tmp_path, network(), steps=3, rate=1e-2, small_rate=1e-2, seed=3)

    first = stage().loop()
    next(first)
    with pytest.raises(RuntimeError, match="another run is training in"):
        next(stage().loop())
    first.close()
    assert next(stage().loop()) == 0


@pytest.mark.parametrize("together", [False, True])
def test_told_to_stop_one_process_stops_and_one_of_several_waits_for_the_others(together: bool, tmp_path: Path) -> None:
    own = network()
    stage = Stage(tmp_path, own, steps=9, rate=1e-2, small_rate=1e-2, seed=3, together=together)
    with pytest.raises(SystemExit, match="the same command goes on"):
        for step in stage.loop():
            stage.update(own(torch.ones(2, 3, 8, 8)).square().mean())
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            stage.stopping = stage.stopping or step == 5
    assert stage.step == (6 if together else 3)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == stage.step


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
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
    # Folding the normalisation into the kernel rounds to half precision once more.
    assert np.linalg.norm(found - wanted) <= 2e-3 * np.linalg.norm(wanted)
    large = [t for t in onnx.load(tmp_path / "own.onnx").graph.initializer if np.prod(t.dims) > 64]
    assert large and all(t.data_type == onnx.TensorProto.FLOAT16 for t in large)
