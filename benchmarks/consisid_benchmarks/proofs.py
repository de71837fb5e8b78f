"""Writes the table of proofs: what `make proof` found, and with which source files."""

from __future__ import annotations

from collections.abc import Iterable, Set

from consisid_benchmarks.stale import CELL, CURRENT
from consisid_benchmarks.tables import markdown
from consisid_measurement.proof import Proof


def table(proofs: Iterable[Proof], stale: Set[str]) -> str:
    """Markdown, a row for each record; `stale` are names of those to mark."""
    lines = [["proof", "what", "trials", "commit", "when", "source files"], ["---", "---", "---:", "---", "---", "---"]]
    for proof in proofs:
        name, days = proof.path.stem, sorted({trial["when"][:10] for trial in proof.trials.values()})
        commit = f"`{proof.commit}`" if proof.commit else "–"
        mark = CELL if name in stale else CURRENT
        lines.append([name, _what(proof), str(len(proof.trials)), commit, " to ".join(days[:1] + days[1:][-1:]), mark])
    return markdown(lines) if len(lines) > 2 else "No records yet: `make proof`, then `consisid bench report`."


def _what(proof: Proof) -> str:
    """The names of the tests that recorded it, as words."""
    tests = dict.fromkeys(trial["test"] for trial in proof.trials.values() if "test" in trial)
    return "; ".join(test.removeprefix("test_").replace("_", " ") for test in tests) or "–"
