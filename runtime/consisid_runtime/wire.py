"""What client, server and served models exchange besides the tensors of signatures.py.

Options are request parameters under their own names; only those that differ from their defaults are sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options, Plan

BUNDLE_VARIABLE = "CONSISID_BUNDLE"
"""The environment variable with the bundle's path for the served models; `Server` sets it."""

PACKAGE_VARIABLE = "CONSISID_PACKAGE"
"""The environment variable with the launcher's package folder; served models of another folder refuse to load."""

RAW_FRAMES = "raw_frames"
"""The only request parameter that is not an option: true also returns the decoded frames."""

# Request parameters of Triton server's own protocol extensions: clients may send them, no stage reads them.
_TRITON = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"}
_TRITON_PREFIX = "triton_"


def read_parameters(text: str) -> tuple[Options, bool]:
    """The options and whether raw frames are requested, from a request's parameters as JSON text.

    Raises `InvalidOption` for an unknown name or an invalid value.
    """
    try:
        values = json.loads(text) if text else {}
    except ValueError as error:
        raise InvalidOption(f"the request's parameters are not JSON: {error}") from None
    values = {k: v for k, v in values.items() if k not in _TRITON and not k.startswith(_TRITON_PREFIX)}
    raw = values.pop(RAW_FRAMES, False)
    if not isinstance(raw, bool):
        raise InvalidOption(f"{RAW_FRAMES} must be true or false, got {raw!r}")
    return Options.from_mapping(values), raw


def write_parameters(options: Options, *, raw_frames: bool = False) -> dict[str, str | int | float | bool]:
    """The parameters of a request; the inverse of `read_parameters`."""
    return options.to_mapping() | ({RAW_FRAMES: True} if raw_frames else {})


def describe(plan: Plan, fingerprint: str, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The `info` of a video: seed, bundle, resolved options, the report of each stage and its wall time.

    Args:
        fingerprint: of the bundle.
        stages: the report of each stage by its name, including `seconds`, its wall time.
    """
    reports = {name: {k: v for k, v in report.items() if k != "seconds"} for name, report in stages.items()}
    resolved = {"frames": plan.frames, "height": plan.height, "width": plan.width}
    return {
        "seed": plan.options.seed,
        "bundle": fingerprint,
        "options": asdict(plan.options) | resolved,
        **{name: report for name, report in reports.items() if report},
        "seconds": {name: round(report["seconds"], 4) for name, report in stages.items()},
    }
