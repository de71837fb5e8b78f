"""The variants of a request: ablations, sweeps, known damage, and controls that must not change the quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from consisid_fidelity.nano import damage
from consisid_runtime.stages.denoise import Conditions

EXACT, TRUTH, RECONSTRUCTED = "exact", "ground-truth", "vae-reconstruction"
STEPS = (5, 10, 25, 50, 100, 200)
SOLVERS = ("dpm", "ddim")
GUIDANCES = (1.0, 2.0, 3.0, 6.0)
Whose = Literal["own", "other"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to process a case's request. Everything not named here equals `exact`: same person, prompt and noise.

    Attributes:
        name: of the variant.
        options: changes to the request's options.
        prompt: whether the case's prompt is used; otherwise an empty prompt.
        tokens, moments: whether the face tokens (high-frequency identity) and image latents (low-frequency identity)
            are of the case's own person or of its donor.
        face: applied to the face tokens.
        conditions: applied to the outputs of `dit_prepare`.
        scheduler: changes to the checkpoint's scheduler configuration.
        step: run the step in PyTorch instead of the bundle's engine, with weights in "fp32" or in this many bits.
        reference: the variant whose video of the same case this one is compared with.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prompt: bool = True
    tokens: Whose = "own"
    moments: Whose = "own"
    face: Callable[[Tensor], Tensor] | None = None
    conditions: Callable[[Conditions], Conditions] | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    step: Literal["fp32"] | int | None = None
    reference: str = EXACT


ABLATIONS = (
    Variant("no-global", {"global_identity": False}),
    Variant("no-local", {"local_identity": False}),
    Variant("neither", {"global_identity": False, "local_identity": False}),
    Variant("other-global", moments="other"),
    Variant("other-local", tokens="other"),
    Variant("empty-prompt", prompt=False),
)
CONTROLS = (
    Variant("again"),
    Variant("tokens-in-another-order", face=damage.permuted_tokens),
    Variant("pytorch-step", step="fp32"),
    Variant("8-bit-weights", step=8),
)
DAMAGES = (
    Variant("tokens-shuffled", face=damage.shuffled_channels),
    Variant("tokens-of-another", tokens="other"),
    Variant("first-injection-dropped", conditions=damage.without_injection(0)),
    Variant("3-bit-weights", step=3),
    Variant("leading-timesteps", scheduler={"timestep_spacing": "leading"}),
    Variant("shifted-noise-levels", scheduler={"snr_shift_scale": 3.0}),
)
PROBES = (
    Variant("middle-injection-dropped", conditions=damage.without_injection(0.5)),
    Variant("last-injection-dropped", conditions=damage.without_injection(1)),
)
"""Judged by the gate without an expected verdict: how much the later injections matter depends on the model."""
STEP_SWEEP = tuple(
    Variant(sweep_name, {"scheduler": solver, "steps": steps}, reference=f"{solver}-{max(STEPS)}-steps")
    for solver in SOLVERS
    for steps in sorted(STEPS, reverse=True)  # the reference first
    if (sweep_name := f"{solver}-{steps}-steps")
)
GUIDANCE_SWEEP = tuple(Variant(f"guidance-{scale:g}", {"guidance": scale}) for scale in GUIDANCES)

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (Variant(EXACT), *ABLATIONS, *CONTROLS, *DAMAGES, *PROBES, *STEP_SWEEP, *GUIDANCE_SWEEP)
}
REFERENCES = frozenset(variant.reference for variant in VARIANTS.values())
"""Variants that others are compared with; their videos are stored."""

SPECTRA = (TRUTH, RECONSTRUCTED, EXACT, "no-global", "no-local", "neither")
"""Variants whose spectra are shown."""


def names(variants: tuple[Variant, ...]) -> tuple[str, ...]:
    return tuple(variant.name for variant in variants)
