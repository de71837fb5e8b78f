from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    ConsisIDPipeline,
    ConsisIDTransformer3DModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.consisid.pipeline_consisid import draw_kps
from PIL import Image
from safetensors.torch import load_file, save_file

from consisid_runtime.errors import InvalidOption
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.configs.dit import DiTConfig, LocalExtractorConfig
from consisid_runtime.models.dit import DiT, Modulate, Prepare, Step
from consisid_runtime.models.local_extractor import PREFIX, LocalExtractor
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.signatures import DIT_MODULATE, DIT_PREPARE, DIT_STEP
from consisid_runtime.stages.denoise import MODULATION_BLOCK, Denoiser, SolverState, guidance

TRANSFORMER = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 20,
    "text_embed_dim": 24,
    "num_layers": 4,
    "sample_width": 6,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 5,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
    "is_train_face": True,
    "cross_attn_dim_head": 8,
    "cross_attn_num_heads": 2,
    "LFE_id_dim": 20,
    "LFE_vit_dim": 16,
    "LFE_depth": 5,
    "LFE_dim_head": 4,
    "LFE_num_heads": 2,
    "LFE_num_id_token": 2,
    "LFE_num_querie": 6,
    "LFE_output_dim": 32,
    "LFE_num_scale": 5,
    "local_face_scale": 0.7,
}
VAE = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (4, 4, 8, 8),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "temporal_compression_ratio": 4,
    "scaling_factor": 0.6,
}
SCHEDULER = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}
GEOMETRY = Geometry(frames=9, height=32, width=48, spatial=8, temporal=4, patch=2, fixed_size=True)
KEYPOINTS = np.array([[10, 12], [30, 12], [20, 20], [12, 30], [28, 30]], dtype=np.float32)


@dataclass
class FakeBundle:
    """Torch modules behind the engines' interface; remembers what each was called with."""

    dit: DiT
    transformer: dict
    folder: object
    calls: list = field(default_factory=list)

    def module(self, name):
        module, signature = {
            "dit_prepare": (Prepare(self.dit), DIT_PREPARE),
            "dit_modulate": (Modulate(self.dit), DIT_MODULATE),
            "dit_step": (Step(self.dit), DIT_STEP),
        }[name]

        @torch.no_grad()
        def engine(inputs):
            self.calls.append((name, dict(inputs)))
            outputs = module(*(inputs[port.name] for port in signature.inputs))
            assert len(inputs) == len(signature.inputs)
            return {port.name: tensor for port, tensor in zip(signature.outputs, outputs, strict=True)}

        return engine

    @property
    def config(self):
        return CheckpointConfig({"transformer": self.transformer, "vae": VAE, "scheduler": SCHEDULER}.__getitem__)

    def file(self, name):
        return self.folder / name


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A checkpoint of random weights on both sides, and one request's inputs: `make(is_kps)`."""

    def build(is_kps=False):
        torch.manual_seed(0)
        config = TRANSFORMER | {"is_kps": is_kps}
        reference = ConsisIDTransformer3DModel(**config).float().eval()
        vae = AutoencoderKLCogVideoX(**VAE).eval()
        with torch.no_grad():
            for tensor in (*reference.parameters(), *reference.buffers()):
                tensor.add_(0.2 * torch.randn_like(tensor))
        state = reference.state_dict()
        dit, extractor = DiT(DiTConfig.from_dict(config)), LocalExtractor(LocalExtractorConfig.from_dict(config))
        dit.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)})
        extractor.load_state_dict({n.removeprefix(PREFIX): t for n, t in state.items() if n.startswith(PREFIX)})
        folder = tmp_path_factory.mktemp("bundle")
        save_file({"pos_embedding": state["patch_embed.pos_embedding"]}, folder / "positions.safetensors")
        pixels = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8).numpy()
        identity, hidden = torch.randn(1, 20), torch.randn(5, 1, 7, 16)
        pipe = ConsisIDPipeline(None, None, vae, reference, CogVideoXDPMScheduler(**SCHEDULER))
        pipe.set_progress_bar_config(disable=True)
        portrait = Image.fromarray(pixels)
        images = [portrait, draw_kps(portrait, KEYPOINTS)] if is_kps else [portrait]
        with torch.no_grad():
            (face_tokens,) = extractor(identity, hidden)
            prepared = [pipe.video_processor.preprocess(image, height=32, width=48).unsqueeze(2) for image in images]
            moments = [vae.encode(image).latent_dist.parameters.permute(0, 2, 1, 3, 4) for image in prepared]
        return SimpleNamespace(
            bundle=FakeBundle(dit, config, folder),
            pipe=pipe,
            portrait=portrait,
            identity=identity,
            hidden=list(hidden),
            text_states=torch.randn(2, 5, 24),
            face_tokens=face_tokens,
            image_moments=torch.cat(moments, dim=1),
        )

    return functools.cache(build)


def test_learned_positions_are_converted_once_and_lie_where_the_engine_is(make, tmp_path):
    case, engines = make(), {}
    saved = load_file(case.bundle.folder / "positions.safetensors")["pos_embedding"].bfloat16()
    save_file({"pos_embedding": saved}, tmp_path / "positions.safetensors")
    bundle = FakeBundle(case.bundle.dit, case.bundle.transformer, tmp_path)
    denoiser = Denoiser(bundle)
    for seed in (1, 2):
        request = plan(Options(seed=seed, steps=1), GEOMETRY)
        denoiser(case.text_states, case.face_tokens, case.image_moments, request)
    both = [inputs for name, inputs in bundle.calls if name == "dit_prepare"]
    found = torch.cat([both[0]["text_positions"], both[0]["video_positions"].flatten(0, 2)])
    assert found.dtype == torch.float32 and torch.equal(found, saved[0].float())
    for port in ("text_positions", "video_positions"):
        assert both[0][port].data_ptr() == both[1][port].data_ptr()

    def module(name):
        engines[name] = FakeBundle.module(bundle, name)
        engines[name].device = torch.device("meta")
        return engines[name]

    bundle.module = module
    assert Denoiser(bundle)._learned.device.type == "meta"


def ours(case, options, **more):
    request = plan(options, GEOMETRY)
    states = case.text_states if request.guided else case.text_states[1:]
    return Denoiser(case.bundle)(states, case.face_tokens, case.image_moments, request, **more)


def theirs(case, options):
    request = plan(options, GEOMETRY)
    pipe, negative, positive = case.pipe, *case.text_states[:, None]
    pipe.scheduler = {"dpm": CogVideoXDPMScheduler, "ddim": CogVideoXDDIMScheduler}[options.scheduler](**SCHEDULER)
    return pipe(
        image=case.portrait,
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        height=32,
        width=48,
        num_frames=request.frames,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        use_dynamic_cfg=options.dynamic_guidance,
        generator=torch.Generator().manual_seed(options.seed),
        id_cond=case.identity,
        id_vit_hidden=case.hidden,
        kps_cond=KEYPOINTS,
        max_sequence_length=5,
        output_type="latent",
    ).frames


def error(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize(
    ("is_kps", "options"),
    [
        (False, Options(steps=4)),
        (True, Options(steps=4, seed=3)),
        (False, Options(steps=4, guidance=1.0)),
        (False, Options(steps=4, scheduler="ddim")),
        (True, Options(steps=5, frames=17, dynamic_guidance=True)),
        (False, Options(steps=1)),
        (True, Options(steps=23, guidance=1.5, seed=2**63 - 1)),
    ],
    ids=["dpm", "keypoints", "unguided", "ddim", "dynamic-17-frames", "one-step", "23-steps"],
)
def test_latents_are_the_reference_pipelines(make, is_kps, options):
    case = make(is_kps)
    assert error(ours(case, options), theirs(case, options)) < 1e-5


def test_the_strength_of_the_local_path(make):
    case = make()
    for options, scale in ((Options(steps=3, face_scale=2.0), 1.4), (Options(steps=3, local_identity=False), 0.0)):
        case.pipe.transformer.local_face_scale = scale
        expected = theirs(case, options)
        case.pipe.transformer.local_face_scale = TRANSFORMER["local_face_scale"]
        assert error(ours(case, options), expected) < 1e-5


def test_without_the_global_path_the_image_is_zero_and_the_noise_is_the_same(make):
    case = make(True)
    case.bundle.calls.clear()
    with_image, without = (ours(case, Options(steps=3, global_identity=on)) for on in (True, False))
    assert error(without, with_image) > 1e-3
    images = [inputs["image_latents"] for name, inputs in case.bundle.calls if name == "dit_prepare"]
    assert images[0][:, :2].abs().min() > 0
    assert not images[0][:, 2:].any()
    assert not images[1].any()
    first = [inputs["latents"] for name, inputs in case.bundle.calls if name == "dit_step"][::3]
    assert torch.equal(*first)


def test_images_are_drawn_as_the_reference_draws_them(make):
    case, request = make(True), plan(Options(seed=5), GEOMETRY)
    moments = 30 * torch.randn(1, 2, 8, 4, 6)
    Denoiser(case.bundle).start(case.text_states, case.face_tokens, moments, request)
    generator = torch.Generator().manual_seed(5)
    expected = [
        VAE["scaling_factor"] * DiagonalGaussianDistribution(image).sample(generator) for image in moments[0, :, None]
    ]
    assert torch.equal(case.bundle.calls[-1][1]["image_latents"][0, :2], torch.cat(expected))


SKIPPING = tuple(step in (0, 1, 5, 6, 12) for step in range(13))
"""Skips steps at the start of a block of modulations, and behind the last guided one of `GUIDED`."""
GUIDED = 6


@pytest.mark.parametrize("cuts", [(1,), (5, 11), (MODULATION_BLOCK,), (3, 3, 12), tuple(range(1, 13))], ids=str)
@pytest.mark.parametrize("solver", ["dpm", "ddim"])
@pytest.mark.parametrize("skipping", [False, True])
def test_a_run_may_be_cut_anywhere(make, solver, cuts, skipping):
    case, request = make(), plan(Options(steps=13, scheduler=solver), GEOMETRY)
    if skipping:
        request = replace(request, computed=SKIPPING, guided_steps=GUIDED)
    denoiser = Denoiser(case.bundle)
    whole = denoiser(case.text_states, case.face_tokens, case.image_moments, request)
    conditions, latents, state, schedule = denoiser.start(
        case.text_states, case.face_tokens, case.image_moments, request
    )
    for begin, end in zip((0, *cuts), (*cuts, 13), strict=True):
        state = SolverState(None if state.x0 is None else state.x0.clone(), state.generator.clone())
        latents, state = denoiser.run(conditions, latents, state, request, schedule, range(begin, end))
    assert torch.equal(latents, whole)


def test_a_skipped_step_keeps_the_clean_latents(make):
    case, request = make(), replace(plan(Options(steps=13), GEOMETRY), computed=SKIPPING, guided_steps=GUIDED)
    denoiser = Denoiser(case.bundle)
    conditions, latents, state, schedule = denoiser.start(
        case.text_states, case.face_tokens, case.image_moments, request
    )
    case.bundle.calls.clear()
    for step, numbers in enumerate(schedule.steps):
        generator = torch.Generator()
        generator.set_state(state.generator)
        draws = [torch.randn(latents.shape, generator=generator) for _ in range(numbers.draws)]
        before, held = latents, state.x0
        latents, state = denoiser.run(conditions, latents, state, request, schedule, range(step, step + 1))
        if SKIPPING[step]:
            assert held is None or not torch.equal(state.x0, held)
        else:
            assert torch.equal(state.x0, held)
            wanted = numbers.keep * before - numbers.pull * held + numbers.noise * draws[-1]
            assert torch.equal(latents, wanted)
    branches = [len(inputs["text_tokens"]) for name, inputs in case.bundle.calls if name == "dit_step"]
    assert branches == [2, 2, 2, 1, 1]


def test_steps_without_guidance_are_those_of_the_prompt_alone(make):
    case = make()
    late = replace(plan(Options(steps=3), GEOMETRY), guided_steps=0)
    states = case.text_states, case.face_tokens, case.image_moments
    denoiser = Denoiser(case.bundle)
    conditions, latents, state, schedule = denoiser.start(*states, plan(Options(steps=3), GEOMETRY))
    found = denoiser.run(conditions, latents, state, late, schedule, range(3))[0]
    assert torch.equal(found, ours(case, Options(steps=3, guidance=1.0)))


def test_nothing_is_left_to_keep_before_the_first_step(make):
    """Leaking the clean latents of another request would take passing them in: there is no other place for them."""
    case, request = make(), replace(plan(Options(steps=13), GEOMETRY), computed=(False, *SKIPPING[1:]))
    with pytest.raises(ValueError, match="step 0 is skipped: it needs x0"):
        Denoiser(case.bundle)(case.text_states, case.face_tokens, case.image_moments, request)


def test_a_run_is_a_function_of_its_arguments(make):
    case, request = make(), plan(Options(steps=3), GEOMETRY)
    denoiser, random = Denoiser(case.bundle), torch.get_rng_state()
    start = denoiser.start(case.text_states, case.face_tokens, case.image_moments, request)
    conditions, latents, state, schedule = start
    before = [tensor.clone() for tensor in (latents, state.generator, conditions.face_values)]
    first, second = (
        denoiser.run(conditions, latents, state, request, schedule, range(3)) for _ in range(2)
    )  # fmt: skip
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].generator, second[1].generator)
    after = (latents, state.generator, conditions.face_values)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert torch.equal(torch.get_rng_state(), random)


def test_modulations_are_tabulated_in_blocks(make):
    case = make()
    case.bundle.calls.clear()
    ours(case, Options(steps=2 * MODULATION_BLOCK + 3))
    counts = [len(inputs["timesteps"]) for name, inputs in case.bundle.calls if name == "dit_modulate"]
    assert counts == [MODULATION_BLOCK, MODULATION_BLOCK, 3]


def test_progress_is_told_after_each_step(make):
    told = []
    ours(make(), Options(steps=3), progress=lambda stage, done, total: told.append((stage, done, total)))
    assert told == [("denoise", 1, 3), ("denoise", 2, 3), ("denoise", 3, 3)]


def test_dynamic_guidance_is_the_references_formula():
    request = plan(Options(steps=50, guidance=6.0, dynamic_guidance=True), GEOMETRY)
    assert guidance(request, 19) == 1 + 6.0 * ((1 - math.cos(math.pi * (31 / 50) ** 5.0)) / 2)
    assert guidance(plan(Options(guidance=6.0), GEOMETRY), 19) == 6.0


def test_text_states_of_another_guidance_are_refused(make):
    case = make()
    with pytest.raises(InvalidOption, match="2 prompts, got 1"):
        Denoiser(case.bundle)(case.text_states[:1], case.face_tokens, case.image_moments, plan(Options(), GEOMETRY))


@pytest.mark.parametrize("span", [range(0, 5), range(2, 1), range(0, 4, 2)], ids=str)
def test_a_span_outside_the_schedule_is_refused(make, span):
    case, request = make(), plan(Options(steps=4), GEOMETRY)
    denoiser = Denoiser(case.bundle)
    conditions, latents, state, schedule = denoiser.start(
        case.text_states, case.face_tokens, case.image_moments, request
    )
    with pytest.raises(ValueError, match=r"range\(0, 4\)"):
        denoiser.run(conditions, latents, state, request, schedule, span)
