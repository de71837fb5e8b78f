"""What is done to a request: the ablations, the sweeps, the known damage, and controls that must cost nothing."""

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
    """One way to answer a case's request. Nothing but what is named differs from `exact`: same person, words, noise.

    Attributes:
        options: changes of the request's options.
        prompt: whether the words are read; otherwise those of an empty prompt.
        tokens, moments: whose face tokens (high-frequency identity) and image latents (low-frequency) are used.
        face, conditions: applied to the face tokens, and to what `dit_prepare` made.
        scheduler: changes of the checkpoint's scheduler configuration.
        step: run the step in PyTorch instead of the bundle's engine; weights in "fp32" or in so many bits.
        reference: the variant whose videos of the same case it is compared with.
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
"""Put to the gate to see what they cost: how much it uses its later injections is a model's own affair."""
SWEEP = tuple(
    Variant(sweep_name, {"scheduler": solver, "steps": steps}, reference=f"{solver}-{max(STEPS)}-steps")
    for solver in SOLVERS
    for steps in sorted(STEPS, reverse=True)  # the reference first
    if (sweep_name := f"{solver}-{steps}-steps")
)
GUIDED = tuple(Variant(f"guidance-{scale:g}", {"guidance": scale}) for scale in GUIDANCES)

VARIANTS: dict[str, Variant] = {
    variant.name: variant for variant in (Variant(EXACT), *ABLATIONS, *CONTROLS, *DAMAGES, *PROBES, *SWEEP, *GUIDED)
}
KEPT = frozenset(variant.reference for variant in VARIANTS.values())
"""Variants that others are compared with."""


SPECTRA = (TRUTH, RECONSTRUCTED, EXACT, "no-global", "no-local", "neither")
"""Variants whose spectra are shown."""


def names(variants: tuple[Variant, ...]) -> tuple[str, ...]:
    return tuple(variant.name for variant in variants)
