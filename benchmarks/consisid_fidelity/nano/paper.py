"""ConsisID's own figures, to be printed beside ours: arXiv 2411.17440, tables 2 to 4; FaceSim-Arc unless named."""

from __future__ import annotations

from consisid_fidelity.nano.variants import EXACT

ABLATIONS = {EXACT: 0.73, "no-local": 0.66, "no-global": 0.05}
"""Table 3, plans c, b and a, the last two also in table 2, without LFE and without GFE: retrained without it."""

STEPS = {25: 0.50, 50: 0.52, 100: 0.46, 200: 0.33}
"""Table 4."""
