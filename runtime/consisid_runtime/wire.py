"""What passes between client, server and served models beside the tensors of signatures.py.

Options are request parameters under their own names; only those that differ from their defaults need to be sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options, Plan

BUNDLE_VARIABLE = "CONSISID_BUNDLE"
"""The environment variable in which the served models find the bundle's path; `server.Server` sets it."""

PACKAGE_VARIABLE = "CONSISID_PACKAGE"
"""Where the launcher runs from; the served models refuse to be of another `consisid_runtime`."""

RAW_FRAMES = "raw_frames"
"""The one request parameter that is not an option: true asks for the decoded frames beside the MP4."""

# Triton server's own request parameters (its protocol extensions); clients may send them, no stage reads them.
_TRITON = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"}
_TRITON_PREFIX = "triton_"


def read_parameters(text: str) -> tuple[Options, bool]:
    """Options and whether raw frames are wanted, from a request's parameters as JSON text.

    Raises `InvalidOption` for an unknown name or a value that cannot be meant.
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
    """The parameters of a request; `read_parameters` inverts it."""
    return options.to_mapping() | ({RAW_FRAMES: True} if raw_frames else {})


def describe(plan: Plan, fingerprint: str, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The `info` of a video: what was done, by which bundle, and how long each stage took.

    Args:
        fingerprint: the bundle's.
        stages: what each stage reported, by its name; `seconds` in there is the stage's wall time.
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
