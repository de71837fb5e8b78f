"""What is measured on a GPU, at small sizes on a CPU with a clock that counts its readings."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from consisid_benchmarks import fake_gpu
from consisid_benchmarks.fake_gpu.count import Count, Work
from consisid_benchmarks.fake_gpu.full_size import FullSize
from consisid_benchmarks.fake_gpu.stages import STAGES
from consisid_benchmarks.gpu_run import decode_peers, full_size, peers, stages, stopwatch, whole, width_check
from consisid_benchmarks.gpu_run.stopwatch import Gauge, Lap, Stopwatch
from consisid_benchmarks.predict.seconds import FP8_STAGES, RUN
from consisid_measurement import harness
from consisid_measurement.harness import Mismatch
from consisid_measurement.record import Row, read
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.errors import MissingExtra

Configs = dict[str, dict[str, Any]]
in_bf16 = pytest.mark.proof
"""Half a minute or more each on a CPU that has no instructions for bf16."""


@pytest.fixture
def fit_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU takes seconds for the face networks, which have one size, and for products in bf16."""
    monkeypatch.setitem(STAGES, "face", STAGES["text"])
    monkeypatch.setattr(fake_gpu.full_size, "FLOAT32", mock.MagicMock(__contains__=lambda *_: True))


def test_weights_depend_on_name_and_shape_alone(tiny: Configs) -> None:
    first, second = (FullSize.tensors(full_size.bundle("cpu", tiny), "vae") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len({tensor.flatten()[0].item() for tensor in first.values()}) > len(first) / 2
    aligner = full_size.bundle("cpu", tiny).tensors("aligner")
    variances = [tensor for name, tensor in aligner.items() if name.endswith("running_var")]
    assert variances and all(bool((tensor > 0).all()) for tensor in variances)


def test_a_lap_waits_for_the_device_before_the_clock_is_read() -> None:
    events: list[str] = []
    gauge = Gauge(
        lambda: events.append("wait"),
        lambda: events.append("reset"),
        lambda: len(events),
        lambda: (events.append("read"), float(len(events)))[1],
    )
    watch = Stopwatch(gauge)
    watch("a")
    watch("")
    assert events == ["wait", "reset", "read", "wait", "read", "reset", "read"]
    assert watch.laps == [Lap("a", 2.0, 5)]


def test_a_lap_has_the_energy_used_in_it() -> None:
    joules = iter([100.0, 130.0, 131.0, 171.0, 172.0])
    watch = Stopwatch(Gauge(lambda: None, lambda: None, lambda: 0, lambda: 0.0, lambda: next(joules)))
    for stage in ("a", "b", ""):
        watch(stage)
    assert [(lap.stage, lap.joules) for lap in watch.laps] == [("a", 30.0), ("b", 40.0)]


@pytest.mark.usefixtures("fit_for_a_cpu")
@pytest.mark.parametrize("stage", ["text", "encode", "denoise", "decode"])
def test_every_stage_has_its_time_memory_and_rates(tiny: Configs, gauge: Gauge, stage: str) -> None:
    made: list[object] = []

    def bundle() -> Any:
        made.append(full_size.bundle("cpu", tiny))
        return made[-1]

    counts = {"denoise/step": Count(kernels={"mm": Work(1, 10**9, 2 * 10**12)})}
    bounds = {"matmul_bf16_tflops": 10.0, "copy_gbps": None}
    rows = stages.measure(bundle, full_size.inputs("cpu"), gauge, counts, bounds, 2, lambda *_: None, stage)
    assert len(made) == 1
    found = {(row.case, row.metric): (row.median, row.n) for row in rows}
    wanted = {"denoise": ["denoise/start", "denoise/first-step", "denoise/step"]}.get(stage, [stage])
    assert [row.case for row in rows if row.metric == "stage_seconds"] == wanted
    assert found[wanted[-1], "stage_seconds"] == (1.0, 2)
    assert found[wanted[-1], "peak_bytes"] == (8.0, 2)
    rates = {
        metric: value for (case, metric), (value, _) in found.items() if metric not in ("stage_seconds", "peak_bytes")
    }
    assert rates == ({"tflops": 2.0, "matmul_percent": 20.0, "gbps": 1.0} if stage == "denoise" else {})


def test_a_step_in_fp8_is_a_case_of_its_own(tiny: Configs, gauge: Gauge) -> None:
    counts = {"fp8/denoise/step": Count(kernels={"mm": Work(1, 10**9, 2 * 10**12)})}

    def bundle() -> FullSize:
        return full_size.bundle("cpu", tiny, float8=True)

    rows = stages.measure(bundle, full_size.inputs("cpu"), gauge, counts, {}, 1, lambda *_: None, "denoise", "fp8/")
    cases = [row.case for row in rows if row.metric == "stage_seconds"]
    assert cases == ["fp8/denoise/start", "fp8/denoise/first-step", "fp8/denoise/step"]
    assert [row.median for row in rows if row.metric == "tflops"] == [2.0]


@pytest.mark.usefixtures("fit_for_a_cpu")
def test_a_whole_request_counts_every_step_once(tiny: Configs, gauge: Gauge) -> None:
    joules = (2.0 * reading for reading in itertools.count())
    metered = replace(gauge, joules=lambda: next(joules))
    rows = whole.measure(full_size.bundle("cpu", tiny), full_size.inputs("cpu"), metered, 1000)
    # Four stages and the start of denoising, and 50 steps.
    assert [(row.case, row.metric, row.median) for row in rows] == [
        ("request/50-steps", "total_seconds", 55.0),
        ("request/50-steps", "peak_bytes", 8.0),
        ("request/50-steps", "energy_joules", 110.0),
    ]


@pytest.mark.usefixtures("fit_for_a_cpu")
def test_where_time_is_short_the_request_is_said_to_be_extrapolated(tiny: Configs, gauge: Gauge) -> None:
    rows = whole.measure(full_size.bundle("cpu", tiny), full_size.inputs("cpu"), gauge, 27)
    assert [(row.case, row.metric, row.median) for row in rows][:1] == [
        ("request/20-of-50-steps", "extrapolated_seconds", 55.0)
    ]


def test_a_step_that_differs_at_full_width_is_refused(tiny: Configs) -> None:
    error, own = width_check.require_same_step("cpu", tiny)
    assert 0 < error <= 2 * own
    run = TorchEngine.__call__

    def wrong(self: TorchEngine, inputs: Any) -> dict[str, torch.Tensor]:
        found = run(self, inputs)
        narrow = next(self.network.parameters()).dtype == torch.bfloat16
        return {name: tensor * 1.05 if narrow else tensor for name, tensor in found.items()}

    with mock.patch.object(TorchEngine, "__call__", wrong), pytest.raises(Mismatch, match="twice that is allowed"):
        width_check.require_same_step("cpu", tiny)


@in_bf16
def test_diffusers_is_timed_in_turn_with_ours_at_the_same_weights(tiny: Configs, gauge: Gauge) -> None:
    compiled: list[object] = []
    with mock.patch.object(torch.nn.Module, "compile", lambda self: compiled.append(self)):
        rows = peers.measure("cpu", tiny, gauge, 1, ("diffusers-eager", "diffusers-compiled"))
    errors, timed = rows[:3], rows[3:]
    assert {row.metric for row in errors} == {"error_percent"} and all(0 < row.median < 2 for row in errors)
    assert [(row.variant, row.metric, row.median, row.n) for row in timed] == [
        (variant, "step_seconds", 1.0, 1) for variant in ("ours", "diffusers-eager", "diffusers-compiled")
    ]
    assert len(compiled) == width_check.LAYERS + tiny["transformer"]["num_layers"]


@in_bf16
def test_a_peer_with_another_result_is_not_timed(tiny: Configs, gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_injections(network: Any) -> None:
        network.is_train_face = False

    monkeypatch.setattr(peers, "PEERS", {peers.PEER: lambda network: None, "other": without_injections})
    rows = peers.measure("cpu", tiny, gauge, 1, (peers.PEER, "other"))
    errors = {row.variant: row.median for row in rows if row.metric == "error_percent"}
    assert errors["other"] > 10 * errors[peers.PEER]
    assert {row.variant for row in rows if row.metric == "step_seconds"} == {"ours", peers.PEER}


def test_cache_dit_runs_an_injection_once_after_all_blocks(tiny: Configs) -> None:
    """Its adapter joins the blocks to one, and diffusers injects the face after each second block."""
    pytest.importorskip("cache_dit")
    injected: dict[str, list[int]] = {}

    def observed(name: str) -> peers.Change:
        def change(network: Any) -> None:
            for index, attention in enumerate(network.perceiver_cross_attention):
                attention.register_forward_hook(lambda *_, index=index: injected.setdefault(name, []).append(index))
            peers.PEERS[name](network)

        return change

    bundle = full_size.bundle("cpu", tiny)
    with torch.no_grad():
        found = peers.compare(bundle, tiny, "cpu", {name: observed(name) for name in (peers.PEER, peers.CACHED)})
    assert injected == {peers.PEER: [0, 1], peers.CACHED: [0]}
    assert found[peers.CACHED] > 10 * found[peers.PEER]


def test_an_offloaded_network_fetches_each_layer_and_computes_the_same(tiny: Configs) -> None:
    pytest.importorskip("accelerate")
    from diffusers.hooks.group_offloading import ModuleGroup

    fetched: list[Any] = []
    fetch = ModuleGroup.onload_

    def counted(group: Any) -> None:
        fetched.append(group)
        fetch(group)

    bundle = full_size.bundle("cpu", tiny)
    changes = {name: peers.PEERS[name] for name in (peers.PEER, peers.OFFLOADED)}
    with torch.no_grad(), mock.patch.object(ModuleGroup, "onload_", counted):
        found = peers.compare(bundle, tiny, "cpu", changes)
    assert found[peers.OFFLOADED] == found[peers.PEER]
    assert len(fetched) > 10 * tiny["transformer"]["num_layers"]


@in_bf16
def test_decoding_in_tiles_is_timed_with_its_error(tiny: Configs, gauge: Gauge) -> None:
    # Tiles whose overlaps are whole latents, as at the published size; else diffusers' frames are larger.
    tiles = {
        **tiny,
        "transformer": {**tiny["transformer"], "sample_height": 12, "sample_width": 20},
        "vae": {**tiny["vae"], "sample_height": 96, "sample_width": 160},
    }
    peaks = iter([100, 103, 100, 140, 100, 120] * 2)
    rows = decode_peers.measure("cpu", tiles, replace(gauge, peak=lambda: next(peaks)), 1)
    variants = ("ours", decode_peers.EAGER, decode_peers.TILED)
    found = {(row.variant, row.metric): row.median for row in rows}
    assert found.keys() == {
        (variant, metric) for variant in variants for metric in ("error_percent", "decode_seconds", "working_bytes")
    }
    assert [found[variant, "working_bytes"] for variant in variants] == [3, 40, 20]
    ours, eager, tiled = (found[variant, "error_percent"] for variant in variants)
    assert 0 < ours <= 2 * eager and tiled > 2 * eager


@in_bf16
def test_another_video_than_diffusers_is_refused(tiny: Configs, gauge: Gauge, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TorchEngine.__call__

    def wrong(self: TorchEngine, inputs: Any) -> dict[str, torch.Tensor]:
        return {name: 1.05 * tensor for name, tensor in run(self, inputs).items()}

    monkeypatch.setattr(TorchEngine, "__call__", wrong)
    monkeypatch.setattr(decode_peers, "FRAMES", 9)
    with pytest.raises(Mismatch, match="our frames are"):
        decode_peers.measure("cpu", tiny, gauge, 1)


def test_another_result_than_diffusers_is_refused(tiny: Configs) -> None:
    bundle = full_size.bundle("cpu", tiny)
    module = bundle.module("dit_step")
    bundle.loaded["dit_step"] = lambda inputs: {n: 1.05 * t for n, t in module(inputs).items()}  # type: ignore[assignment]
    with torch.no_grad(), pytest.raises(Mismatch, match="from diffusers-eager in float32"):
        peers.compare(bundle, tiny, "cpu", {peers.PEER: peers.PEERS[peers.PEER]})


@pytest.mark.parametrize("suite", [stages, whole, peers])
def test_without_a_gpu_a_suite_says_what_it_needs(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingExtra, match=f"benchmark '{suite.SUITE}' needs an NVIDIA GPU"):
        suite.command()


@pytest.mark.usefixtures("fit_for_a_cpu")
@pytest.mark.parametrize("suite", [stages, whole, peers])
def test_a_suites_command_writes_its_record_after_its_gates(
    suite: Any, tiny: Configs, gauge: Gauge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle, inputs, gates = full_size.bundle, full_size.inputs, []
    monkeypatch.setattr(suite, "require_gpu", lambda name: None)
    monkeypatch.setattr(suite, "ceilings", lambda: {"matmul_bf16_tflops": 700.0, "copy_gbps": 4000.0})
    monkeypatch.setattr(harness, "passes", lambda test, root: (gates.append(test), True)[1])
    monkeypatch.setattr(full_size, "bundle", lambda device, float8=False: bundle("cpu", tiny, float8=float8))
    monkeypatch.setattr(full_size, "inputs", lambda device: inputs("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(stopwatch, "cuda", lambda: gauge)
    monkeypatch.setattr(width_check, "require_same_step", gates.append)
    row = Row("denoise/step", "ours", "step_seconds", 1.0, 1.0, 1.0, 1)
    for part in (peers, decode_peers):
        monkeypatch.setattr(part, "measure", lambda *_: [row])
    monkeypatch.delitem(STAGES, "face")
    suite.command(**{} if suite is whole else {"rounds": 1}, machine="h200", out=tmp_path)
    found = read(tmp_path / "h200" / f"{suite.SUITE}.json")
    assert gates == ["tests/kernels/test_engine.py", *(["cuda"] if suite is not peers else [])]
    assert found.ceilings["copy_gbps"] == 4000.0 and found.gate.passed and found.sources
    if suite is stages:
        assert {row.case for row in found.rows if row.metric == "matmul_percent"} == {
            *RUN,
            *FP8_STAGES.values(),
        } - {"face"}
    else:
        assert found.rows
