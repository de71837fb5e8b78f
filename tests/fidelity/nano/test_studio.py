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
from consisid_fidelity.nano.set import png
from consisid_fidelity.nano.studio import Made, Studio
from consisid_fidelity.nano.variants import (
    CONTROLS,
    DAMAGES,
    EXACT,
    GUIDED,
    KEPT,
    SWEEP,
    VARIANTS,
    Variant,
)
from consisid_runtime.bundle import Bundle
from consisid_runtime.options import Options
from consisid_runtime.stages.face.image import Pixels

OPTIONS = Options(steps=2, frames=9, guidance=3.0)
DROPPED = [variant for variant in VARIANTS.values() if variant.conditions is not None]


@dataclass(frozen=True)
class Drawn:
    """Stands in for a case: somebody whom the untrained checkpoint's face networks can see."""

    number: int
    prompt: str = "a person smiles"

    @property
    def name(self) -> str:
        return f"drawn {self.number}"

    @property
    def noise(self) -> int:
        return self.number

    def portrait(self) -> Pixels:
        return drawn_portrait(self.number, 256)

    def donor(self) -> Drawn:
        return Drawn(self.number + 1)


@pytest.fixture(scope="module")
def studio(untrained: Path, torch_bundle_of: Callable[[], Path]) -> Studio:
    return Studio(Bundle.open(torch_bundle_of(), device="cpu"), Checkpoint.open(untrained), OPTIONS)


@pytest.fixture(scope="module")
def make(studio: Studio) -> Callable[..., Made]:
    """Makes a video once; its frames stay black, decoding is half of the time."""
    studio.pipeline.stages["decode"] = lambda latents, request: np.zeros((1, 8, 8, 3), np.uint8)
    known: dict[tuple[str, int, str], Made] = {}

    def once(variant: Variant | str, number: int = 3, prompt: str = "a person smiles") -> Made:
        chosen = VARIANTS[variant] if isinstance(variant, str) else variant
        key = (chosen.name, number, prompt)
        if key not in known:
            known[key] = studio.make(Drawn(number, prompt), chosen)  # type: ignore[arg-type]
        return known[key]

    return once


def test_exact_is_what_the_pipeline_makes(studio: Studio) -> None:
    one = Drawn(3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(one.portrait())))), one.portrait())
    whole = studio.pipeline.generate(png(one.portrait()), one.prompt, replace(OPTIONS, seed=one.noise))
    made = studio.make(one, VARIANTS[EXACT])  # type: ignore[arg-type]
    assert np.array_equal(made.frames, whole.frames)
    assert set(made.seconds) == {"denoise_seconds", "decode_seconds"}


@pytest.mark.parametrize("name", [variant.name for variant in CONTROLS if variant.step != 8])
def test_controls_change_next_to_nothing(name: str, make: Callable[..., Made]) -> None:
    exact = make(EXACT).latents
    assert np.linalg.norm(make(name).latents - exact) <= 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("name", [variant.name for variant in DAMAGES if variant not in DROPPED])
def test_damage_changes_the_video(name: str, make: Callable[..., Made]) -> None:
    exact = make(EXACT).latents
    assert np.linalg.norm(make(name).latents - exact) > 1e-4 * np.linalg.norm(exact)


def test_each_dropped_injection_is_another_video(make: Callable[..., Made]) -> None:
    # The untrained checkpoint has two layers of face attention, so the middle one is the first or the last.
    first, _, last = (make(variant).latents for variant in DROPPED)
    assert not np.array_equal(first, last) and not np.array_equal(first, make(EXACT).latents)


def test_without_both_paths_nobody_is_known(make: Callable[..., Made]) -> None:
    exact, other = make("neither"), make(replace(VARIANTS["neither"], name="x", tokens="other", moments="other"))
    # The keypoints and portrait still take their turn at the generator, but reach nothing.
    assert np.array_equal(exact.latents, other.latents)
    assert not np.array_equal(make("no-local").latents, make("no-global").latents)


def test_an_empty_prompt_is_the_same_for_all(make: Callable[..., Made]) -> None:
    assert not np.array_equal(make(EXACT).latents, make(EXACT, prompt="a red door").latents)
    assert np.array_equal(make("empty-prompt").latents, make("empty-prompt", prompt="a red door").latents)
    unguided = replace(VARIANTS["empty-prompt"], name="unguided", options={"guidance": 1.0})
    assert np.array_equal(make(unguided).latents, make(unguided, prompt="a red door").latents)


def test_variants_name_options_and_references_that_exist() -> None:
    for variant in VARIANTS.values():
        replace(OPTIONS, **variant.options)
        assert variant.reference in VARIANTS
    assert len(SWEEP) == 12 and len(GUIDED) == 4
    assert {EXACT, "dpm-200-steps", "ddim-200-steps"} == KEPT
