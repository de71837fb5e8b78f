"""The whole way from features of a face and a prompt to frames, against diffusers' ConsisIDPipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import consisid_nano
from consisid_export.checkpoint import example
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.plan import plan
from consisid_runtime.stages import table

PROMPT = "a man reading by the sea"
LIMIT = 1e-5


@dataclass(frozen=True)
class Case:
    """One combination; `transformer` changes the checkpoint, `options` the request."""

    options: dict[str, Any]
    transformer: dict[str, Any] = field(default_factory=dict)
    prompt: str = PROMPT

    def __str__(self) -> str:
        return ",".join(f"{k}={v}" for k, v in {**self.options, **self.transformer}.items()) or "defaults"


KPS = {"is_kps": True}
UNLEARNED = {"use_learned_positional_embeddings": False}
# Every value of every factor meets every value of most others.
CASES = [
    Case({}),
    Case({"frames": 9}),
    Case({"scheduler": "ddim"}),
    Case({"guidance": 1.0}),
    Case({"dynamic_guidance": True}),
    Case({"negative_prompt": "blurry, dark"}),
    Case({"frames": 9, "scheduler": "ddim", "guidance": 1.0}),
    Case({"frames": 9, "dynamic_guidance": True, "scheduler": "ddim", "negative_prompt": "blurry"}),
    Case({"seed": 12345, "steps": 7}),
    Case({"steps": 1}),
    Case({}, KPS),
    Case({"frames": 9, "scheduler": "ddim", "negative_prompt": "dark"}, KPS),
    Case({"guidance": 1.0, "frames": 9}, KPS),
    Case({"dynamic_guidance": True}, KPS | UNLEARNED),
    Case({"scheduler": "ddim", "guidance": 1.0}, KPS | UNLEARNED),
    Case({}, UNLEARNED),
    Case({"frames": 9, "negative_prompt": "blurry"}, UNLEARNED),
    Case({"scheduler": "ddim", "dynamic_guidance": True}, UNLEARNED),
    Case({"height": 64, "width": 160, "guidance": 1.0}, UNLEARNED),
]


@dataclass(frozen=True)
class Features:
    """What the face networks would give: random, the same for both sides."""

    identity: torch.Tensor
    hidden: torch.Tensor
    portrait: Image.Image
    keypoints: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def features() -> Features:
    from consisid_nano.untrained.configs import TRANSFORMER as sizes

    generator = torch.Generator().manual_seed(3)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Features(
        identity=torch.randn(1, sizes["LFE_id_dim"], generator=generator),
        hidden=torch.randn(sizes["LFE_num_scale"], 1, 577, sizes["LFE_vit_dim"], generator=generator),
        portrait=Image.fromarray(pixels).resize((512, 512), Image.Resampling.BICUBIC),
        keypoints=np.array([[180, 200], [330, 205], [256, 290], [200, 370], [310, 372]], dtype=np.float32),
    )


@pytest.fixture(scope="module")
def reference_of(checkpoint_of: Callable[..., Path]) -> Callable[..., Any]:
    loaded: dict[Path, Any] = {}

    def load(**transformer: Any) -> Any:
        folder = checkpoint_of(**transformer)
        if folder not in loaded:
            loaded[folder] = reference_at(folder)
        return loaded[folder]

    return load


def reference_at(folder: Path) -> Any:
    from diffusers import ConsisIDPipeline

    pipeline = ConsisIDPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline_of(torch_bundle_of: Callable[..., Path]) -> Callable[..., Pipeline]:
    opened: dict[Path, Pipeline] = {}

    def load(**transformer: Any) -> Pipeline:
        folder = torch_bundle_of(**transformer)
        if folder not in opened:
            opened[folder] = Pipeline.open(folder, device="cpu")
        return opened[folder]

    return load


def run_reference(pipeline: Any, case: Case, options: Options, features: Features) -> tuple[torch.Tensor, Any]:
    """Latents, and pictures from 0 to 1."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

    kind = {"dpm": CogVideoXDPMScheduler, "ddim": CogVideoXDDIMScheduler}[options.scheduler]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    with torch.no_grad():
        result = pipeline(
            image=features.portrait,
            prompt=case.prompt,
            negative_prompt=options.negative_prompt or None,
            height=options.height,
            width=options.width,
            num_frames=options.frames,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            use_dynamic_cfg=options.dynamic_guidance,
            generator=torch.Generator().manual_seed(options.seed),
            id_cond=features.identity,
            id_vit_hidden=list(features.hidden),
            kps_cond=features.keypoints,
            output_type="latent",
            max_sequence_length=pipeline.transformer.config.max_text_seq_length,
        )
        decoded = pipeline.decode_latents(result.frames)
    return result.frames, pipeline.video_processor.postprocess_video(decoded, output_type="np")[0]


def run_ours(pipeline: Pipeline, case: Case, options: Options, features: Features) -> tuple[torch.Tensor, Any]:
    request = plan(options, pipeline.bundle.config.geometry)
    extractor = pipeline.bundle.module("local_extractor")
    tokens = extractor({"identity": features.identity, "clip_hidden": features.hidden})["face_tokens"]
    values: table.Values = {
        "face_tokens": tokens,
        "prompt": case.prompt,
        "portrait": np.array(features.portrait),
        "keypoints": torch.from_numpy(features.keypoints),
    }
    table.run(pipeline.stages, values, request, names=("text", "encode", "denoise", "decode"))
    return values["latents"], values["frames"]


@dataclass
class Spy:
    """A module that remembers what it was last given."""

    module: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
    given: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.given = inputs
        return self.module(inputs)


def differences(pipeline: Pipeline, reference: Any, case: Case, features: Features) -> tuple[float, int]:
    """The latents' error relative to the reference's, and by how many levels the frames differ at most."""
    options = Options(**{"steps": 4, "seed": 7, "guidance": 6.0, **case.options})
    latents, frames = run_ours(pipeline, case, options, features)
    wanted, pictures = run_reference(reference, case, options, features)
    error = float((latents - wanted).norm() / wanted.norm())
    levels = np.abs(frames.astype(int) - np.round(pictures * 255).astype(int))
    assert frames.std() > 1, "a constant video would agree with anything constant"
    return error, int(levels.max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_video_is_the_references(
    case: Case, features: Features, pipeline_of: Callable[..., Pipeline], reference_of: Callable[..., Any]
) -> None:
    error, levels = differences(pipeline_of(**case.transformer), reference_of(**case.transformer), case, features)
    assert error <= LIMIT and levels <= 1


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_the_exported_video_is_the_references(
    case: Case, features: Features, untrained_bundle: Path, reference_of: Callable[..., Any]
) -> None:
    error, levels = differences(Pipeline.open(untrained_bundle, device="cpu"), reference_of(), case, features)
    assert error <= LIMIT and levels <= 1


@pytest.mark.parametrize("engine", ["torch", "mixed", pytest.param("onnx", marks=pytest.mark.proof)])
def test_a_trained_checkpoints_video_is_the_references(
    engine: str, trained_bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its own portrait; both sides are given what the runtime's face networks make of it."""
    folder = consisid_nano.checkpoint()
    pipeline = Pipeline.open(trained_bundle_of(engine), device="cpu")
    photo = example.read(folder)
    spy = Spy(pipeline.bundle.module("local_extractor"))
    monkeypatch.setattr(pipeline.stages["face"], "_extractor", spy)
    face = pipeline.stages["face"](photo.portrait, plan(Options(), pipeline.bundle.config.geometry))
    features = Features(spy.given["identity"], spy.given["clip_hidden"], Image.fromarray(face.portrait), face.keypoints)
    prompt, seed = photo.held_out
    case = Case({"seed": seed, "steps": 10, "guidance": 3.0}, prompt=prompt)
    error, levels = differences(pipeline, reference_at(folder), case, features)
    assert error <= LIMIT and levels <= 1
