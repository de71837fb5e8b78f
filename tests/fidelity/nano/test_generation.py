from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.sample_portrait import drawn_portrait
from consisid_fidelity.nano.evaluation_set import png
from consisid_fidelity.nano.generation import GeneratedVideo, VideoGenerator
from consisid_fidelity.nano.variants import (
    CONTROLS,
    DAMAGES,
    EXACT,
    GUIDANCE_SWEEP,
    REFERENCES,
    STEP_SWEEP,
    VARIANTS,
    Variant,
)
from consisid_runtime.bundle import Bundle
from consisid_runtime.options import Options
from consisid_runtime.stages.face.image import Pixels

OPTIONS = Options(steps=2, frames=9, guidance=3.0)
DROPPED = [variant for variant in VARIANTS.values() if variant.conditions is not None]


@dataclass(frozen=True)
class FakeCase:
    """A case of a drawn person that the untrained checkpoint's face networks detect."""

    number: int
    prompt: str = "a person smiles"

    @property
    def name(self) -> str:
        return f"drawn {self.number}"

    @property
    def seed(self) -> int:
        return self.number

    def portrait(self) -> Pixels:
        return drawn_portrait(self.number, 256)

    def donor(self) -> FakeCase:
        return FakeCase(self.number + 1)


@pytest.fixture(scope="module")
def generator(untrained: Path, torch_bundle_of: Callable[[], Path]) -> VideoGenerator:
    return VideoGenerator(Bundle.open(torch_bundle_of(), device="cpu"), Checkpoint.open(untrained), OPTIONS)


@pytest.fixture(scope="module")
def generate(generator: VideoGenerator) -> Callable[..., GeneratedVideo]:
    """Generates a video once; decoding is replaced by black frames, since it takes half of the time."""
    generator.pipeline.stages["decode"] = lambda latents, request: np.zeros((1, 8, 8, 3), np.uint8)
    known: dict[tuple[str, int, str], GeneratedVideo] = {}

    def once(variant: Variant | str, number: int = 3, prompt: str = "a person smiles") -> GeneratedVideo:
        chosen = VARIANTS[variant] if isinstance(variant, str) else variant
        key = (chosen.name, number, prompt)
        if key not in known:
            known[key] = generator.generate(FakeCase(number, prompt), chosen)  # type: ignore[arg-type]
        return known[key]

    return once


def test_exact_equals_the_pipeline(generator: VideoGenerator) -> None:
    one = FakeCase(3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(one.portrait())))), one.portrait())
    whole = generator.pipeline.generate(png(one.portrait()), one.prompt, replace(OPTIONS, seed=one.seed))
    made = generator.generate(one, VARIANTS[EXACT])  # type: ignore[arg-type]
    assert np.array_equal(made.frames, whole.frames)
    assert set(made.seconds) == {"denoise_seconds", "decode_seconds"}


@pytest.mark.parametrize("name", [variant.name for variant in CONTROLS if variant.step != 8])
def test_controls_change_latents_by_rounding_only(name: str, generate: Callable[..., GeneratedVideo]) -> None:
    exact = generate(EXACT).latents
    assert np.linalg.norm(generate(name).latents - exact) <= 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("name", [variant.name for variant in DAMAGES if variant not in DROPPED])
def test_damage_changes_the_video(name: str, generate: Callable[..., GeneratedVideo]) -> None:
    exact = generate(EXACT).latents
    assert np.linalg.norm(generate(name).latents - exact) > 1e-4 * np.linalg.norm(exact)


def test_dropping_different_injections_gives_different_videos(generate: Callable[..., GeneratedVideo]) -> None:
    # The untrained checkpoint has two face attention layers, so the middle one equals the first or the last.
    first, _, last = (generate(variant).latents for variant in DROPPED)
    assert not np.array_equal(first, last) and not np.array_equal(first, generate(EXACT).latents)


def test_without_both_paths_the_portrait_has_no_effect(generate: Callable[..., GeneratedVideo]) -> None:
    exact = generate("neither")
    other = generate(replace(VARIANTS["neither"], name="x", tokens="other", moments="other"))
    # The draws for keypoints and portrait still advance the random generator.
    assert np.array_equal(exact.latents, other.latents)
    assert not np.array_equal(generate("no-local").latents, generate("no-global").latents)


def test_an_empty_prompt_is_the_same_for_all(generate: Callable[..., GeneratedVideo]) -> None:
    assert not np.array_equal(generate(EXACT).latents, generate(EXACT, prompt="a red door").latents)
    assert np.array_equal(generate("empty-prompt").latents, generate("empty-prompt", prompt="a red door").latents)
    unguided = replace(VARIANTS["empty-prompt"], name="unguided", options={"guidance": 1.0})
    assert np.array_equal(generate(unguided).latents, generate(unguided, prompt="a red door").latents)


def test_variants_name_options_and_references_that_exist() -> None:
    for variant in VARIANTS.values():
        replace(OPTIONS, **variant.options)
        assert variant.reference in VARIANTS
    assert len(STEP_SWEEP) == 12 and len(GUIDANCE_SWEEP) == 4
    assert {EXACT, "dpm-200-steps", "ddim-200-steps"} == REFERENCES
