"""The table of memory settings: the plan of each for ConsisID-preview, from what the fake GPU counted."""

from __future__ import annotations

from consisid_runtime.memory.needs import Needs, read
from consisid_runtime.memory.plan import GIB, RESERVED, SETTINGS, MemoryPlan, enough, fit, owners
from generators.markdown import table

_HEAD = ["`--memory`", "tensors at most", "weights that wait on the host", "blocks of `dit_step` from the host"]


def memory_table() -> str:
    """Markdown: a row for each setting."""
    needs = read()
    return table(_HEAD, [_row(setting, fit(needs, setting * GIB - RESERVED), needs) for setting in SETTINGS])


def _row(setting: int, found: MemoryPlan | None, needs: Needs) -> list[str]:
    if found is None:
        return [str(setting), f"refused: {enough(needs)}", "", ""]
    away = [f"`{name}`" for name in owners() if name not in found.resident]
    blocks = f"{found.streamed} of {needs.blocks}, in every step" if found.streamed else "none"
    return [str(setting), f"{found.peak / GIB:.1f} GiB", ", ".join(away) or "none", blocks]
