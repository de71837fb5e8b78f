"""What passes between client, server and served models: request parameters, values as tensors, a video's `info`.

Options are request parameters under their own names; only those that differ from their defaults are sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consisid_runtime.errors import ConsisIDError, InvalidOption, ServerDied, SharedMemoryFull
from consisid_runtime.files.image_file import check_bytes
from consisid_runtime.files.json_file import parse_json
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.plan import Plan
from consisid_runtime.signatures import Port

BUNDLE_VARIABLE = "CONSISID_BUNDLE"
"""The environment variable with the bundle's path for the served models; `Server` sets it."""

DEVICE_VARIABLE = "CONSISID_DEVICE"
"""The environment variable with the device of the served models, one of `engines.DEVICES`; `Server` sets it."""

MEMORY_VARIABLE = "CONSISID_MEMORY"
"""The environment variable with the GiB that a served pipeline of one process may take, as `memory.decide` reads it."""

VERIFIED_VARIABLE = "CONSISID_VERIFIED"
"""The environment variable with the files that `Server` has verified, for the served models: `Bundle.handover`."""

PACKAGE_VARIABLE = "CONSISID_PACKAGE"
"""The environment variable with the launcher's package folder; served models of another folder refuse to load."""

TICKETS_VARIABLE = "CONSISID_TICKETS"
"""The environment variable with the folder of the tickets of a door, for the served models: see `serve.ticket`."""

TOKEN_VARIABLE = "CONSISID_TOKEN"
"""The environment variable with a door's token, where no file is named: other users see command lines."""

WATERMARK_VARIABLE = "CONSISID_WATERMARK"
"""The environment variable with the function that watermarks videos, `module:function`: see `provenance.hooks`."""

FACES_KEPT_VARIABLE = "CONSISID_FACES_KEPT"
"""The environment variable with the number of photographs whose faces the served models remember."""

FACES_SECONDS_VARIABLE = "CONSISID_FACES_SECONDS"
"""The environment variable with the seconds for which they do."""

TICKET = "consisid_ticket"
"""The parameter with which a door names a request's ticket; models without `TICKETS_VARIABLE` refuse it."""

URGENT = "consisid_urgent"
"""The parameter with which a door says that a request goes before those that are not urgent; refused as `TICKET`."""

PRIORITY, HIGHEST = "priority", 1
"""KServe's parameter, and Triton server's highest priority: an urgent request at a door, where every other number is an
ordinary one."""

REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
"""What a request's id is, as a whole, to be written into a log: a short word."""

PACKED = "consisid_packed"
"""The parameter with all others as JSON text, from one model to another: Triton server 2.51 passes no fractions there.
"""

TRIAL = "trial"
"""The action that needs nothing of the caller: see `stages.trial`."""

ACTIONS = ("generate", "identify", "forget", "estimate", TRIAL)
"""What `consisid_stream` may be asked to do; what an action needs: `required_inputs`."""

_HANDLE = re.compile(r"[\w-]{0,64}", re.ASCII)

LONGEST_INTERVAL = 86400.0
"""Seconds between two checkpoints, at most."""

INFO = "_info"
"""Behind a stage's name: the port that carries what it reports, as JSON."""

# What Triton server's Python backend says of itself.
_UNHEALTHY = re.compile(r"Stub process.* is not healthy")
_FULL = re.compile(r"Failed to increase the shared memory pool|grown shared memory region|initialize shared memory key")

# Request parameters of Triton server's own protocol extensions: clients may send them, no stage reads them.
_TRITON = {"sequence_id", "sequence_start", "sequence_end", PRIORITY, "timeout", "headers", "binary_data_output"}
_TRITON_PREFIX = "triton_"


@dataclass(frozen=True, slots=True)
class Extras:
    """What a request may ask for beside options: parameters of a request under these names.

    Raises `InvalidOption` for an invalid value.

    Attributes:
        raw_frames: also the decoded frames.
        similarity: in `info`, how alike the video's faces are to the portrait: see `stages.similarity`.
        previews: a JPEG with the events of a stream, about twice a second.
        checkpoint_seconds: a checkpoint with the events of a stream whenever this many seconds have passed; 0 for none.
        identity: a handle of `identify`, in place of an image.
        action: "generate"; "identify", to read the image's face and get a handle; "forget", to end a handle;
            "estimate", to be told what a video with these options should take; "trial", to run a tiny request of
            nobody through every stage.
    """

    raw_frames: bool = False
    similarity: bool = False
    previews: bool = False
    checkpoint_seconds: float = 0.0
    identity: str = ""
    action: str = "generate"

    def __post_init__(self) -> None:
        if not isinstance(self.identity, str) or not _HANDLE.fullmatch(self.identity):
            raise InvalidOption("identity must be a handle that identify returned")
        if self.action not in ACTIONS:
            raise InvalidOption(f"action must be one of {', '.join(ACTIONS)}, got {str(self.action)[:40]!r}")
        for name in ("raw_frames", "similarity", "previews"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidOption(f"{name} must be true or false, got {str(getattr(self, name))[:100]!r}")
        seconds = self.checkpoint_seconds
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 <= seconds <= LONGEST_INTERVAL:
            raise InvalidOption(
                f"checkpoint_seconds must be a number from 0 to {LONGEST_INTERVAL:g}, got {str(seconds)[:100]!r}"
            )


_NO_EXTRAS = Extras()


def required_inputs(extras: Extras) -> set[str]:
    """The inputs that a request to `consisid_stream` has, beside a checkpoint.

    Raises `InvalidOption` for an action without its handle, or with one that it does not take.
    """
    without = extras.action in ("identify", "estimate", TRIAL)
    if (extras.action == "forget") > bool(extras.identity) or (without and extras.identity):
        raise InvalidOption(f"{extras.action} takes {'no identity' if extras.identity else 'an identity'}")
    return {
        "generate": {"prompt"} if extras.identity else {"image", "prompt"},
        "identify": {"image"},
        "forget": set(),
        "estimate": set(),
        TRIAL: set(),
    }[extras.action]


def read_parameters(text: str) -> tuple[Options, Extras]:
    """The options and the extras, from a request's parameters as JSON text.

    Raises `InvalidOption` for an unknown name or an invalid value.
    """
    return read_options(parse_parameters(text))


def parse_parameters(text: str) -> dict[str, Any]:
    """A request's parameters from their JSON text, unpacked. Raises `InvalidOption` for anything but a JSON object."""
    values = _object(text)
    packed = values.pop(PACKED, None)
    return values if packed is None else values | _object(packed)


def pack_parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a request from one model to another; `parse_parameters` unpacks them."""
    return {PACKED: json.dumps(values)}


def _object(text: Any) -> dict[str, Any]:
    try:
        values = parse_json(text, finite=False) if text else {}
    except (ValueError, TypeError) as error:
        raise InvalidOption(f"the request's parameters are not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidOption(f"the request's parameters must be a JSON object, got {str(values)[:100]}")
    return values


def read_options(values: Mapping[str, Any]) -> tuple[Options, Extras]:
    """The options and the extras, from a request's parameters.

    Raises `InvalidOption` for an unknown name or an invalid value.
    """
    values = {k: v for k, v in values.items() if k not in _TRITON and not k.startswith(_TRITON_PREFIX)}
    extras = {field.name: values.pop(field.name) for field in fields(Extras) if field.name in values}
    return Options.from_mapping(values), Extras(**extras)


def write_parameters(options: Options, extras: Extras = Extras()) -> dict[str, str | int | float | bool]:
    """The parameters of a request; the inverse of `read_parameters`."""
    changed = {name: value for name, value in asdict(extras).items() if value != getattr(_NO_EXTRAS, name)}
    return options.to_mapping() | changed


def array_of(value: Any) -> NDArray[Any]:
    """A stage's output as a served model returns it; `value_of` inverts it."""
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8)
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy(force=True))


def value_of(port: Port, array: NDArray[Any]) -> Any:
    """A served model's input as a stage takes it: bytes, text, a `torch.Tensor` of FP32, or the array itself.

    Raises what `check_bytes` and `check_prompt` raise: a request ends here where its image is too large or its prompt
    cannot be meant.
    """
    if port.name == "image":
        check_bytes(array.size)
        return array.tobytes()
    if port.name == "prompt":
        try:
            return check_prompt(str(array[0], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidOption(f"the prompt is not UTF-8: {error.reason} at byte {error.start}") from None
    if port.dtype == "FP32":
        import torch

        return torch.tensor(array)  # a copy: the server's memory is not the stage's to change
    return array


def describe(plan: Plan, fingerprint: str, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The `info` of a video: seed, bundle, resolved options, warnings, the report of each stage and its wall time.

    "warnings" is a list of sentences on what the user may not expect: text that was not read, a face that the detector
    did not find, a kernel that failed its trial. The command prints them.

    Args:
        fingerprint: of the bundle.
        stages: the report of each stage by its name, including `seconds`, its wall time.
    """
    reports = {name: {k: v for k, v in report.items() if k != "seconds"} for name, report in stages.items()}
    return {
        "seed": plan.options.seed,
        "bundle": fingerprint,
        "options": plan.resolved(),
        "warnings": _warnings(reports),
        **{name: report for name, report in reports.items() if report},
        "seconds": {name: round(report["seconds"], 4) for name, report in stages.items()},
    }


def _warnings(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences. A report may come from who calls one stage directly: any of its values may be of any type."""
    face, text = reports.get("face", {}), reports.get("text", {})
    found = []
    problem = reports.get("denoise", {}).get("attention_problem")
    if isinstance(problem, str):
        found.append(f"attention ran in its plain form, the one for this GPU failed its trial: {problem}")
    for name, shown in (("prompt", "the prompt"), ("negative_prompt", "the negative prompt")):
        cut, unknown = text.get(f"{name}_cut_at"), text.get(f"{name}_unknown_tokens")
        if isinstance(cut, int):
            kept = f"cut after character {cut}" if cut else "only the beginning of its first word was read"
            found.append(f"{shown} was too long: {kept}")
        if isinstance(unknown, int) and unknown > 0:
            found.append(
                f"{unknown} of the {text.get(f'{name}_tokens')} tokens of {shown} are unknown to the checkpoint's "
                "vocabulary, which may lack the script or the emoji: their meaning is lost"
            )
    if isinstance(missed := reports.get("similarity", {}).get("problem"), str):
        found.append(f"the faces of the video could not be compared with the portrait: {missed}")
    if face.get("face_found_by") == "aligner":
        found.append(
            "the detector found no face, so that the aligner's was taken, as in the reference: the person may be less "
            "alike; leave space around the head in a close-up"
        )
    return found


def of_backend(text: str) -> ConsisIDError | None:
    """The typed error for what Triton server's Python backend says of itself; None for anything else."""
    if _UNHEALTHY.search(text):
        return ServerDied("the process of a model stands still, or has ended; the request may be sent again")
    if _FULL.search(text):
        return SharedMemoryFull("shared memory is full, in which the server's models pass on tensors")
    return None
