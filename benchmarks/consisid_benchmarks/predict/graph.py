"""What one CUDA graph of a denoising step would save: why the engine captures none.

Replayed, a step costs the host next to nothing, and the device pauses for less between two kernels. The host's time is
saved only where the device does not hide it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consisid_benchmarks.fake_gpu.budgets import NANO_STEPS
from consisid_benchmarks.fake_gpu.count import Count
from consisid_benchmarks.predict.ceilings import GRAPH_GAP_SECONDS, LAUNCH_SECONDS, Device
from consisid_benchmarks.predict.seconds import ENDS, STEPS, device_seconds
from consisid_benchmarks.tables import spell

_CASES = {"full": ("denoise/step", 1), "nano": ("denoise/steps", NANO_STEPS - 1)}
"""Case of the budgets → the stage that counts steps, and how many."""
_SIZES = {"full": "ConsisID-preview's", "nano": "nano's"}
_PAYS = 0.01
"""Share of a step that capturing it has to save."""


def graphs(budget: Mapping[str, Any], device: Device) -> dict[str, Any]:
    """Case → "launches" of one step; of one step "device", "host" and "saved" seconds at best, likely and worst.

    Args:
        budget: of every case.
    """
    return {case: _graph(budget[case]["stages"][stage], steps, device) for case, (stage, steps) in _CASES.items()}


def sentence(case: str, found: Mapping[str, Any]) -> str:
    """Whether a graph pays at a case's size, and the figures that say so."""
    device, host = (found[side]["likely"] for side in ("device", "host"))
    saved = sorted(found["saved"].values())
    least, most = (spell(STEPS * seconds, "seconds") for seconds in (saved[0], saved[-1]))
    pays = found["saved"]["likely"] > _PAYS * max(device, host)
    return (
        f"At {_SIZES[case]} size the {found['launches']:,.0f} launches of a step take the host "
        f"{spell(host, 'seconds')}, its kernels the device {spell(device, 'seconds')}: a CUDA graph of it would save "
        f"{least} to {most} of {STEPS} steps, and {'pays' if pays else 'does not pay'}."
    )


def _graph(counted: Mapping[str, Any], steps: int, device: Device) -> dict[str, Any]:
    count = Count.from_json(counted)
    launches = count.total.launches / steps
    on_device = {end: device_seconds("denoise", count, device, end) / steps for end in ENDS}
    on_host = {end: launches * float(getattr(LAUNCH_SECONDS, end)) for end in ENDS}
    saved = {
        end: max(0.0, on_host[end] - on_device[end]) + launches * float(getattr(GRAPH_GAP_SECONDS, end)) for end in ENDS
    }
    return {"launches": launches, "device": on_device, "host": on_host, "saved": saved}
