"""The plan of a request: its options, resolved against a checkpoint and its tiers. Immutable."""

from __future__ import annotations

from dataclasses import dataclass

from consisid_runtime.errors import InvalidOption, TierUnavailable
from consisid_runtime.options import Options
from consisid_runtime.tiers import GUIDANCE, TIERS, TierSet


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a checkpoint, from its configuration files.

    Attributes:
        frames, height, width: the size it was trained at, in frames and pixels.
        spatial, temporal: the compression of the VAE, in pixels per latent and frames per latent.
        patch: latents per token along height and width.
        fixed_size: whether only the trained height and width are possible, because of learned positions.
    """

    frames: int
    height: int
    width: int
    spatial: int
    temporal: int
    patch: int
    fixed_size: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Options resolved against a checkpoint; the input of every stage.

    `latent_frames` counts latent frames, `rows` and `columns` count tokens. Latents are
    [1, latent_frames, C, rows·patch, columns·patch].

    Attributes:
        options: as they were asked for.
        tier, steps, guidance: the options', resolved.
        computed: for each step, whether it is computed; the others keep the clean latents of the one before.
        guided_steps: how many steps, from the first, have guidance.
    """

    options: Options
    frames: int
    height: int
    width: int
    latent_frames: int
    rows: int
    columns: int
    tier: str
    steps: int
    guidance: float
    computed: tuple[bool, ...]
    guided_steps: int

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance doubles the batch in a step."""
        return self.guided_steps > 0


def plan(options: Options, geometry: Geometry, tiers: TierSet = TierSet()) -> Plan:  # noqa: B008  it is frozen
    """Resolve tier, steps and sizes. A pure function.

    Raises `TierUnavailable` for a tier that is not in `tiers`, `InvalidOption` for sizes that the checkpoint does not
    support.
    """
    if not isinstance(options, Options):
        raise InvalidOption(
            f"options must be an Options object, got {type(options).__name__}; see Options.from_mapping"
        )
    tier = TIERS[options.tier or tiers.names[0]]
    if tier.name not in tiers.names:
        raise TierUnavailable(f"the bundle has no tier {tier.name!r}; it has {', '.join(tiers.names)}")
    steps = options.steps or tier.steps
    guidance = GUIDANCE if options.guidance is None else options.guidance
    # A guidance, or a ramp of it, that was asked for applies to every step.
    asked = options.guidance is not None or options.dynamic_guidance
    guided = steps if asked else tier.guided_steps(steps)
    frames = options.frames or geometry.frames
    height = options.height or geometry.height
    width = options.width or geometry.width
    # The VAE decodes three latent frames first, then two at a time: 8k + 1 frames at a temporal compression of 4.
    group = 2 * geometry.temporal
    if frames % group != 1 or frames < group + 1:
        below = max(group + 1, (frames - 1) // group * group + 1)
        raise InvalidOption(f"frames must be {group}k + 1, k ≥ 1, got {frames}; nearest: {below} or {below + group}")
    cell = geometry.spatial * geometry.patch
    for name, size in (("height", height), ("width", width)):
        if size % cell:
            low = max(size // cell * cell, cell)
            raise InvalidOption(f"{name} must be a multiple of {cell}, got {size}; nearest: {low} or {low + cell}")
    if geometry.fixed_size and (height, width) != (geometry.height, geometry.width):
        raise InvalidOption(
            f"this checkpoint has learned positions for {geometry.height}×{geometry.width} (height × width) only, "
            f"got {height}×{width}; omit height and width"
        )
    limits = (8 * geometry.frames, 4 * geometry.height, 4 * geometry.width)
    for name, size, limit in zip(("frames", "height", "width"), (frames, height, width), limits, strict=True):
        if size > limit:
            raise InvalidOption(f"{name} may be at most {limit} with this checkpoint, got {size}")
    return Plan(
        options=options,
        frames=frames,
        height=height,
        width=width,
        latent_frames=(frames - 1) // geometry.temporal + 1,
        rows=height // cell,
        columns=width // cell,
        tier=tier.name,
        steps=steps,
        guidance=guidance,
        computed=tiers.computed(tier, steps),
        guided_steps=guided if guidance > 1.0 else 0,  # as in diffusers' pipeline
    )
