"""The bar plot of a suite, its variants and their ratio to ours; and what every plot begins and ends with."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consisid_measurement.record import OURS, Row, relative

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {OURS: "#1b7837"}
_OTHER = ("#9970ab", "#c2a5cf", "#8c96c6", "#bdbdbd", "#969696")


def plot(rows: Sequence[Row]) -> bytes | None:
    """A PNG of rows that share one metric; equal rows give equal bytes. None without rows.

    Bars are medians, whiskers 20/80 % quantiles; labels are medians and their ratio to the case's `OURS`.
    """
    if not rows:
        return None
    figure = empty_figure(7.0, 0.8 + 0.42 * len(rows))
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh(
        places,
        [row.median for row in rows],
        xerr=([row.median - row.p20 for row in rows], [row.p80 - row.median for row in rows]),
        color=_colours([row.variant for row in rows]),
        capsize=2,
    )
    for place, row in zip(places, rows, strict=True):
        ratio = relative(row, rows)
        label = f"{row.median:.3g}" + ("" if ratio is None else f"  ({ratio:.2f} × {OURS})")
        axes.annotate(label, (row.p80, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    cases = len({row.case for row in rows}) > 1
    axes.set_yticks(places, [f"{row.case}, {row.variant}" if cases else row.variant for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * max(row.p80 for row in rows))
    axes.set_xlabel(f"{rows[0].metric}" if cases else f"{rows[0].metric}, {rows[0].case}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The bytes of the figure's file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # By default matplotlib writes its version into the file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _colours(variants: Sequence[str]) -> list[str]:
    peers = [variant for variant in dict.fromkeys(variants) if variant not in _COLOURS]
    chosen = _COLOURS | {variant: _OTHER[index % len(_OTHER)] for index, variant in enumerate(peers)}
    return [chosen[variant] for variant in variants]
