"""Which form of an operator runs where several compute the same: the fastest that was measured, else the predicted one.

`forms.json` has the seconds of one call at ConsisID-preview's size, all forms of an operator in one run: architecture →
"operator/case" → form → seconds. `make tune` writes it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from consisid_kernels.launch import family

FORMS = Path(__file__).with_name("forms.json")
PREDICTED = {"joint_attention": "hopper", "linear_float8": "scaled_mm", "linear_gelu": "cublaslt"}
"""Operator → the form that should be fastest on a GPU where nothing was measured, from counted instructions:

- the loop of `attention.joint_hopper` overlaps exponentials with the products of the same warps, that of
  `attention.joint` with those of another program only. Where there is no Hopper form, the plain one runs.
- the epilogue of `layers.ffn` overlaps with nothing, and PyTorch's products (cuBLASLt, CUTLASS) reach a larger share of
  the peak.
"""


@cache
def form(operator: str, case: str, architecture: int) -> str:
    """The form of an operator for a case such as "bf16": by its seconds on this architecture, else on its family.

    Raises KeyError for an unknown operator.
    """
    predicted = PREDICTED[operator]
    table: dict[str, dict[str, dict[str, float]]] = json.loads(FORMS.read_text())
    for number in (architecture, family(architecture)):
        if seconds := table.get(str(number), {}).get(f"{operator}/{case}"):
            return min(seconds, key=lambda name: seconds[name])
    return predicted
