"""Writes the rows of each record: the README's table of figures.

Its columns are: what was measured, ours, what it is compared with, the ratio.
"""

from __future__ import annotations

from collections.abc import Iterator

from consisid_benchmarks.tables import spell
from consisid_fidelity.nano.record import NanoRecord
from consisid_fidelity.nano.variants import EXACT, RECONSTRUCTED
from consisid_measurement.record import OURS, Record, relative

_CHOSEN = {
    "pipeline": ("seconds a video", "total_seconds", ("diffusers-eager", "diffusers-compiled/memory-kept")),
    "export": ("peak memory", "peak_rss_bytes", ("torch-onnx-export",)),
}
"""Suite → words for the metric, the metric, the peers."""
SUITES = (*_CHOSEN, "fidelity")
_SIMILARITY = "facesim_arc"


def rows(record: Record) -> Iterator[str]:
    """The cells of a record's rows, " | " between them: one for each case with the metric of both ours and a peer."""
    words, metric, peers = _CHOSEN[record.suite]
    found = {(each.case, each.variant): each for each in record.rows if each.metric == metric}
    place = record.machine.gpu or f"CPU, {record.machine.cores} cores"
    for case in dict.fromkeys(case for case, _ in found):
        others = {peer: found[case, peer] for peer in peers if (case, peer) in found}
        ratios = [ratio for other in others.values() if (ratio := relative(other, record.rows))]
        if ratios:
            what = f"{record.suite}, {words} ({case.replace('/', ', ')}; {place})"
            ours = spell(found[case, OURS].median, metric)
            beside = "; ".join(f"{peer} {spell(other.median, metric)}" for peer, other in others.items())
            yield " | ".join([what, ours, beside, "; ".join(f"{ratio:.1f} ×" for ratio in ratios)])


def people_row(record: NanoRecord) -> str:
    """The same of the experiments with drawn people: similarity to the portrait beside what the VAE leaves of it."""
    figures = record.findings.figures
    ours, ceiling = figures[EXACT][_SIMILARITY], figures[RECONSTRUCTED][_SIMILARITY]
    what = f"fidelity, FaceSim-Arc (consisid-nano, {ours['n']} held-out people)"
    interval = f"{ours['mean']:.2f} ({ours['low']:.2f} to {ours['high']:.2f})"
    share = 100 * ours["mean"] / ceiling["mean"]
    return " | ".join([what, interval, f"{RECONSTRUCTED} {ceiling['mean']:.2f}", f"{share:.0f} % of it"])
