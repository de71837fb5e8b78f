"""The variants of a request: ablations, sweeps, known damage, and controls that must not change the quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from consisid_fidelity.nano import damage
from consisid_runtime.plan import Plan
from consisid_runtime.stages.denoise import Conditions
from consisid_runtime.tiers import TIERS, Tier, TierSet

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
        plan: applied to the resolved options, with the bundle's tiers.
        leaked: the first step is skipped, and keeps the clean latents in which the donor's video ended.
        conditions: applied to the outputs of `dit_prepare`.
        scheduler: changes to the checkpoint's scheduler configuration.
        step: run the step in PyTorch instead of the bundle's engine, with weights in "fp32" or in this many bits, or in
            "fp8" as the torch engine does; "fp8-saturated" is that with scales that are too small.
        reference: the variant whose video of the same case this one is compared with.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prompt: bool = True
    tokens: Whose = "own"
    moments: Whose = "own"
    face: Callable[[Tensor], Tensor] | None = None
    plan: Callable[[Plan, TierSet], Plan] | None = None
    leaked: bool = False
    conditions: Callable[[Conditions], Conditions] | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    step: Literal["fp32", "fp8", "fp8-saturated"] | int | None = None
    reference: str = EXACT


def _as_tier(tier: Tier) -> Callable[[Plan, TierSet], Plan]:
    """Skips steps and guidance as a tier would that the bundle does not have."""
    return lambda request, tiers: replace(
        request, computed=tiers.computed(tier, request.steps), guided_steps=tier.guided_steps(request.steps)
    )


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
    Variant("second-step-skipped", plan=damage.skipping(1)),
    Variant("clean-latents-leaked", plan=damage.skipping(0), leaked=True),
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
TIER_VARIANTS = (Variant("fp8", step="fp8"), *(Variant(tier, {"tier": tier}) for tier in ("fast", "draft")))
"""Measured where the options name neither steps nor guidance, so that each tier takes its own; as is the sweep."""
TIER_SWEEP = tuple(
    Variant(
        f"{solver}-{steps}-steps-skip-{threshold:g}-guided-{guided:g}",
        {"tier": "fast", "scheduler": solver, "steps": steps},
        plan=_as_tier(replace(TIERS["fast"], threshold=threshold, guided=guided)),
    )
    for solver in SOLVERS
    for steps, threshold, guided in (
        *((50, threshold, 1.0) for threshold in (0.0, 0.1, 0.2, 0.3)),
        *((25, threshold, guided) for threshold in (0.0, 0.3) for guided in (1.0, 0.6)),
        (10, 0.0, 1.0),
        (10, 0.0, 0.6),
    )
)
GUIDANCE_SWEEP = tuple(Variant(f"guidance-{scale:g}", {"guidance": scale}) for scale in GUIDANCES)

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(EXACT),
        *ABLATIONS,
        *CONTROLS,
        *DAMAGES,
        *PROBES,
        *STEP_SWEEP,
        *GUIDANCE_SWEEP,
        *TIER_VARIANTS,
        *TIER_SWEEP,
    )
}
REFERENCES = frozenset(variant.reference for variant in VARIANTS.values())
"""Variants that others are compared with; their videos are stored."""

SPECTRA = (TRUTH, RECONSTRUCTED, EXACT, "no-global", "no-local", "neither")
"""Variants whose spectra are shown."""


def names(variants: tuple[Variant, ...]) -> tuple[str, ...]:
    return tuple(variant.name for variant in variants)
