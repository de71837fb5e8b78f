"""The portrait and prompts that a checkpoint is run on during export: for fp8 calibration and the error of a run.

A checkpoint that was not trained on photographs has an example of its own, `example.json` beside the folders:

    {"world": "drawn people; photographs are outside of it", "licence": "Apache-2.0", "portrait": "example.png",
     "calibration": [["prompt", seed], …], "held_out": ["prompt", seed]}
"""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.files.json_file import read_json
from consisid_runtime.files.ownership import is_inside
from consisid_runtime.options import MAX_SEED

FILE = "example.json"
_ENTRIES = ("world", "licence", "portrait", "calibration", "held_out")

Run = tuple[str, int]
"""A prompt and a seed."""


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs that a checkpoint can be run on.

    Attributes:
        portrait: an image file's bytes.
        calibration: runs that fp8 is calibrated on.
        held_out: a run that is not used for calibration.
        world: the world that it was trained on, as the end of "this checkpoint knows …"; None for photographs.
        licence: of all its weights; None where it follows from the official files' origin.
    """

    portrait: bytes
    calibration: tuple[Run, ...]
    held_out: Run
    world: str | None = None
    licence: str | None = None


def default() -> Example:
    """The example for checkpoints trained on photographs."""
    return Example(
        portrait=photograph(),
        calibration=(
            ("A woman smiles at the camera while she walks along a beach at sunset, waves behind her.", 1),
            ("Close-up of a man in a dark suit who reads a newspaper in a café, steam rising from his cup.", 2),
            ("A person in a red raincoat runs through a neon-lit street at night, the camera following.", 3),
        ),
        held_out=("A scientist in a white coat looks up from a microscope and laughs.", 4),
    )


@functools.cache
def photograph() -> bytes:
    """A PNG of the public-domain photograph of Eileen Collins that scikit-image ships."""
    from PIL import Image
    from skimage.data import astronaut

    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "PNG")  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def files(folder: Path) -> list[Path]:
    """The files of a checkpoint's own example, none where it has none. Raises `CheckpointInvalid`."""
    return [folder / FILE, _portrait(folder, _read(folder))] if (folder / FILE).is_file() else []


def read(folder: Path) -> Example:
    """The checkpoint's own example, or the default. Raises `CheckpointInvalid` naming the wrong entry."""
    if not (folder / FILE).is_file():
        return default()
    content = _read(folder)
    calibration = content["calibration"]
    if not isinstance(calibration, list) or not calibration:
        raise _invalid("calibration", "a list of [prompt, seed]", calibration)
    example = Example(
        portrait=_portrait(folder, content).read_bytes(),
        calibration=tuple(_run(f"calibration[{number}]", run) for number, run in enumerate(calibration)),
        held_out=_run("held_out", content["held_out"]),
        world=_line(content, "world"),
        licence=_line(content, "licence"),
    )
    if example.held_out in example.calibration:
        raise _invalid("held_out", "a run that is not in calibration", content["held_out"])
    return example


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = read_json(folder / FILE)
    except ValueError as error:
        raise CheckpointInvalid(f"not JSON ({error})") from error
    if not isinstance(content, dict) or content.keys() != {*_ENTRIES}:
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else repr(content)
        raise CheckpointInvalid(f"expected the entries {', '.join(_ENTRIES)}, found {found}")
    return content


def _line(content: dict[str, Any], entry: str) -> str:
    value = content[entry]
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _invalid(entry, "a line of text", value)
    return value


def _portrait(folder: Path, content: dict[str, Any]) -> Path:
    name = content["portrait"]
    if not is_inside(name):
        raise _invalid("portrait", "the path of an image inside the checkpoint", name)
    if not (folder / name).is_file():
        raise CheckpointInvalid(f"portrait: {name} is missing")
    return folder / name


def _run(entry: str, value: object) -> Run:
    match value:
        case [str(prompt), int(seed)] if prompt.strip() and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED:
            return prompt, seed
    raise _invalid(entry, "[prompt, seed]", value)


def _invalid(entry: str, wanted: str, found: object) -> CheckpointInvalid:
    return CheckpointInvalid(f"{entry}: expected {wanted}, got {json.dumps(found)[:200]}")
