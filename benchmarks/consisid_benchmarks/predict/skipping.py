"""What the tiers that skip steps would take, on a bundle in fp8.

Which steps a tier skips follows from the checkpoint's curve, which needs its weights: nano's is taken, whose schedule
is ConsisID-preview's too. A step without guidance counts as half a step, since it has one branch of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consisid_benchmarks.fake_gpu.full_size import CONFIGS
from consisid_benchmarks.predict.seconds import ENDS, FP8_STAGES, TIMES
from consisid_runtime.models.configs.scheduler import SchedulerConfig
from consisid_runtime.tiers import TIERS, Curve, TierSet

NAMES = tuple(name for name, tier in TIERS.items() if tier.threshold)
_STEPS = ("denoise/first-step", "denoise/step")


def tiers(fp8: Mapping[str, Any], curve: Curve) -> dict[str, dict[str, Any]]:
    """Tier → "computed" and "guided" steps, and "seconds" of a request at best, likely and worst.

    Args:
        fp8: the prediction of a request whose step is in fp8, as `seconds.predict` makes it.
    """
    tier_set = TierSet(curve=curve, timesteps=SchedulerConfig.from_dict(CONFIGS["scheduler"]).timesteps)
    found = {}
    for name in NAMES:
        tier = TIERS[name]
        computed = tier_set.computed(tier, tier.steps)
        guided = sum(computed[: tier.guided_steps(tier.steps)])
        whole = guided + (sum(computed) - guided) / 2
        found[name] = {
            "computed": sum(computed),
            "guided": guided,
            "seconds": {end: _request(fp8, whole, end) for end in ENDS},
        }
    return found


def nano_curve() -> Curve:
    """Of the committed checkpoint. Raises `LookupError` where it has none."""
    import consisid_nano
    from consisid_export.checkpoint.checkpoint import Checkpoint

    curve = Checkpoint.open(consisid_nano.checkpoint()).curve()
    if curve is None:
        raise LookupError("nano has no curve: run `consisid curve` on its checkpoint")
    return curve


def _request(fp8: Mapping[str, Any], steps: float, end: str) -> float:
    """Of `steps` guided steps, which may be a broken number, instead of all."""
    each = {name: float(fp8["stages"][FP8_STAGES[name]]["seconds"][end]) for name in _STEPS}
    all_steps = sum(TIMES[name] * seconds for name, seconds in each.items())
    return float(fp8["request"]["seconds"][end]) - all_steps + steps * each[_STEPS[1]]
