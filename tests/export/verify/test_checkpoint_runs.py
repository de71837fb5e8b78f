"""A checkpoint is run before its bundle exists: for fp8's ranges, and for the error of a whole run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consisid_export.bundle import calibration
from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.fp8 import quantised_layers
from consisid_export.verify import checkpoint_runs, denoising_run
from consisid_export.verify.checkpoint_runs import STEPS, CheckpointRuns
from consisid_export.verify.module import FP32_LIMIT, relative_error
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import ExportRefused, InvalidOption, NoFace, NotFinite
from consisid_runtime.models import networks
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.plan import plan
from consisid_runtime.signatures import DIT_STEP
from consisid_runtime.stages import table
from consisid_runtime.stages.denoise import Denoiser

NUMERIC = {name: {"kind": "numeric", "error": 0.0, "limit": 1e-5} for name in networks.COMPONENTS}


@pytest.fixture(scope="module")
def checkpoint(untrained: Path) -> Checkpoint:
    return Checkpoint.open(untrained)


@pytest.fixture
def runs(checkpoint: Checkpoint, torch_bundle_of: Callable[..., Path]) -> CheckpointRuns:
    return CheckpointRuns(checkpoint, torch_bundle_of(), networks.signatures(checkpoint))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two steps."""
    for module in (checkpoint_runs, calibration, denoising_run):
        monkeypatch.setattr(module, "STEPS", 2)


def test_ranges_are_what_enters_the_layers_of_real_requests(
    runs: CheckpointRuns, short: None, torch_bundle_of: Callable[..., Path], portrait: bytes
) -> None:
    """The oracle is the pipeline on a bundle, and the input of the very first layer by hand."""
    found = runs.largest_inputs(quantised_layers, lambda *_: None)
    assert len(found) == 24
    pipeline = Pipeline.open(torch_bundle_of(), device="cpu")
    seen: list[dict[str, Tensor]] = []
    step = pipeline.bundle.module("dit_step")
    pipeline.bundle.loaded["dit_step"] = lambda inputs: (seen.append(dict(inputs)), step(inputs))[1]
    pipeline.stages["denoise"] = Denoiser(pipeline.bundle)
    shown = runs._checkpoint.example().calibration
    for prompt, seed in shown:
        pipeline.generate(portrait, prompt, Options(seed=seed, steps=2))
    assert len(seen) == 2 * len(shown)
    network = networks.load("dit_step", runs._checkpoint)
    block: Any = network.transformer_blocks[0]  # type: ignore[index,union-attr]
    entering = []
    for inputs in seen:
        shift, scale, _, text_shift, text_scale, _ = inputs["block_modulation"][0, 0].chunk(6)
        norm = block.norm1["norm"]
        weight = network.patch_embed["proj"].weight[:, :16]  # type: ignore[index,union-attr]
        frames = inputs["latents"][0]
        patches = nn.functional.conv2d(frames, weight, stride=2).permute(0, 2, 3, 1)[None]
        video = norm(patches + inputs["image_tokens"]) * (1 + scale) + shift
        text = norm(inputs["text_tokens"]) * (1 + text_scale) + text_shift
        entering += [video.abs().max().item(), text.abs().max().item()]
    for name in ("to_q", "to_k", "to_v"):
        assert found[f"transformer_blocks.0.attn1.{name}"] == pytest.approx(max(entering), rel=1e-5)
    values = all_inputs(network, seen)
    assert found == pytest.approx({name: max(largest) for name, largest in values.items()}, rel=1e-5)
    calls = len(values["transformer_blocks.0.attn1.to_q"]) // len(shown)
    assert any(max(largest) > max(largest[:calls]) for largest in values.values()), "the first prompt's would do"
    assert any(max(largest) > largest[-1] for largest in values.values()), "the last call's would do"


def all_inputs(network: nn.Module, seen: list[dict[str, Tensor]]) -> dict[str, list[float]]:
    """Layer → the largest absolute value that enters it, for each of these calls."""
    values: dict[str, list[float]] = {}
    for name, layer in quantised_layers(network).items():
        note = values.setdefault(name, []).append
        layer.register_forward_pre_hook(lambda _, arguments, note=note: note(float(arguments[0].abs().max())))  # type: ignore[misc]
    with torch.no_grad():
        for inputs in seen:
            network(*(inputs[port.name] for port in DIT_STEP.inputs))
    return values


def test_the_largest_value_of_all_calls_is_kept() -> None:
    found: dict[str, float] = {}
    note = checkpoint_runs._Largest("a", found)
    for value in (1.0, -3.0, 2.0):
        note(nn.Identity(), (torch.tensor([value, 0.5]),))
    assert found == {"a": 3.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_layer_that_gets_what_is_not_finite_is_named(value: float) -> None:
    found: dict[str, float] = {}
    note = checkpoint_runs._Largest("a", found)
    note(nn.Identity(), (torch.tensor([1.0, -2.0]),))
    with pytest.raises(NotFinite, match="what enters a is not finite"):
        note(nn.Identity(), (torch.tensor([value, -3.0]),))
    assert found == {"a": 2.0}


def test_on_a_gpu_networks_are_narrower_but_those_of_faces(runs: CheckpointRuns, short: None) -> None:
    exact = runs.largest_inputs(quantised_layers, lambda *_: None)
    runs._dtype = torch.bfloat16
    narrow = runs.largest_inputs(quantised_layers, lambda *_: None)
    assert narrow != exact
    for name, value in narrow.items():
        assert value == pytest.approx(exact[name], rel=0.1)


def test_samples_are_inputs_of_a_run_of_two_sizes(runs: CheckpointRuns, short: None) -> None:
    samples = runs.step_samples()
    assert [sample["text_tokens"].shape[0] for sample in samples] == [2, 2, 2, 1, 1, 1]
    assert [sample["latents"].shape[1] for sample in samples] == [5, 5, 5, 3, 3, 3]
    assert not samples[0]["latents"].equal(samples[1]["latents"])


def test_a_bundle_tells_the_error_of_a_whole_run(untrained_bundle: Path) -> None:
    found = Bundle.open(untrained_bundle).manifest["denoising_run"]
    assert found["steps"] == STEPS
    assert 0 < found["check"]["error"] <= found["check"]["limit"] == 1e-5


def test_the_last_latents_are_those_of_the_pipeline(
    runs: CheckpointRuns, short: None, torch_bundle_of: Callable[..., Path], portrait: bytes
) -> None:
    pipeline = Pipeline.open(torch_bundle_of(), device="cpu")
    prompt, seed = runs._checkpoint.example().held_out
    request = plan(Options(seed=seed, steps=2), pipeline.bundle.config.geometry)
    values: table.Values = {"image": portrait, "prompt": prompt}
    table.run(pipeline.stages, values, request, names=("face", "text", "encode", "denoise"))
    (found,) = runs.held_out(runs._original)
    assert relative_error(found, values["latents"]) <= FP32_LIMIT


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (1.001, False)])
def test_a_run_that_ends_elsewhere_is_refused(
    runs: CheckpointRuns,
    short: None,
    untrained_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
    accepted: bool,
) -> None:
    class Scaled(OnnxEngine):
        def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: value * (factor if name == "velocity" else 1) for name, value in super().__call__(inputs).items()
            }

    monkeypatch.setattr(denoising_run, "OnnxEngine", Scaled)
    checkpoint, signatures = runs._checkpoint, runs._signatures
    arguments: Any = (checkpoint, untrained_bundle, signatures, NUMERIC, runs)
    if accepted:
        assert denoising_run.check_denoising_run(*arguments, precision="fp32")["check"]["error"] < 1e-5
    else:
        with pytest.raises(ExportRefused, match="after 2 denoising steps the latents differ"):
            denoising_run.check_denoising_run(*arguments, precision="fp32")


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
@pytest.mark.parametrize(("share", "accepted"), [(1.19, True), (1.21, False), (float("inf"), False)])
def test_a_narrow_run_may_be_a_little_further_than_pytorchs_own(
    runs: CheckpointRuns,
    untrained_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    share: float,
    accepted: bool,
) -> None:
    wanted, error = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)).unbind()
    monkeypatch.setattr(runs, "held_out", lambda *_: [wanted, wanted + share * error, wanted + error])
    arguments: Any = (runs._checkpoint, untrained_bundle, runs._signatures, NUMERIC, runs)
    if accepted:
        check = denoising_run.check_denoising_run(*arguments, precision=precision)["check"]
        assert check["error"] == pytest.approx(check["limit"] * share / 1.2, rel=1e-5)
    else:
        with pytest.raises(ExportRefused, match="the latents differ"):
            denoising_run.check_denoising_run(*arguments, precision=precision)


def test_what_pytorch_cannot_compute_either_is_refused(
    runs: CheckpointRuns, untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, broken = torch.ones(1, 8), torch.full((1, 8), float("inf"))
    monkeypatch.setattr(runs, "held_out", lambda *_: [exact, broken, broken])
    arguments: Any = (runs._checkpoint, untrained_bundle, runs._signatures, NUMERIC, runs)
    with pytest.raises(ExportRefused, match="PyTorch itself gives values that are not finite"):
        denoising_run.check_denoising_run(*arguments, precision="fp16")


def test_a_run_with_a_module_that_was_not_run_is_structural(runs: CheckpointRuns, untrained_bundle: Path) -> None:
    checks = NUMERIC | {"dit_step": {"kind": "structural", "reason": "too large"}}
    arguments: Any = (runs._checkpoint, untrained_bundle, runs._signatures, checks, runs)
    found = denoising_run.check_denoising_run(*arguments, precision="fp16")
    assert found["check"] == {"kind": "structural", "reason": "dit_step: too large"}


def test_a_checkpoint_that_finds_no_face_is_exported_and_says_so(
    runs: CheckpointRuns, untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def blind(self: CheckpointRuns, *_: object) -> Any:
        raise NoFace("no face was found")

    monkeypatch.setattr(CheckpointRuns, "held_out", blind)
    monkeypatch.setattr(CheckpointRuns, "largest_inputs", blind)
    arguments: Any = (runs._checkpoint, untrained_bundle, runs._signatures, NUMERIC, runs)
    found = denoising_run.check_denoising_run(*arguments, precision="fp32")["check"]
    assert found == {"kind": "none", "reason": "the checkpoint cannot be run: NO_FACE: no face was found"}
    with pytest.raises(ExportRefused, match="cannot be run to calibrate fp8: NO_FACE"):
        calibration._calibrate(tmp_path / "c", runs._checkpoint, runs, {}, lambda *_: None)


def test_what_is_too_large_for_this_machine_is_refused_with_the_way_out(
    runs: CheckpointRuns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("consisid_export.bundle.modules._LARGEST_RUN", 1000)
    with pytest.raises(ExportRefused, match=r"no CUDA GPU .* --calibration"):
        calibration._calibrate(tmp_path / "c", runs._checkpoint, runs, {}, lambda *_: None)


def test_what_fp16_cannot_hold_is_refused_with_the_way_out(
    runs: CheckpointRuns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(CheckpointRuns, "largest_inputs", lambda *_: {"a": 1.0, "b": 70_000.0})
    with pytest.raises(ExportRefused, match=r"7e\+04 enters b, .* use precision 'bf16'"):
        calibration._calibrate(tmp_path / "c", runs._checkpoint, runs, {}, lambda *_: None)


def test_a_calibration_that_was_changed_is_refused(
    runs: CheckpointRuns, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layers = quantised_layers(networks.load("dit_step", runs._checkpoint))
    monkeypatch.setattr(CheckpointRuns, "largest_inputs", lambda *_: dict.fromkeys(layers, 2.0))
    path, digests = tmp_path / "c.json", {"transformer/config.json": "1", "vae/config.json": "2"}
    calibration._calibrate(path, runs._checkpoint, runs, digests, lambda *_: None)
    assert calibration.read_ranges(path, runs._checkpoint, digests) == dict.fromkeys(layers, 2.0)
    with pytest.raises(InvalidOption, match="was made with another transformer"):
        calibration.read_ranges(path, runs._checkpoint, digests | {"transformer/config.json": "3"})
    path.write_text(path.read_text().replace("2.0", "20.0", 1))
    with pytest.raises(InvalidOption, match="was changed after it was made"):
        calibration.read_ranges(path, runs._checkpoint, digests)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"digest": "1", "largest_inputs": 3}'])
def test_another_calibration_is_refused(checkpoint: Checkpoint, tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InvalidOption, match=r"calibration .*c\.json cannot be read"):
        export_bundle(checkpoint, tmp_path / "b", precision="fp8", calibration=tmp_path / "c.json")
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    with pytest.raises(InvalidOption, match="is not there"):
        export_bundle(checkpoint, tmp_path / "b", precision="fp8", calibration=tmp_path / "absent.json")
