"""Generates a bundle's videos for a table of portraits and prompts, as a collection that `score` reads.

requests.csv    portrait,prompt[,seed][,attribute …]; paths of portraits are relative to the table
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from consisid_fidelity.collection import REFERENCE, file_in, read_table, require_filled
from consisid_fidelity.collection_writer import CollectionWriter
from consisid_fidelity.errors import CollectionInvalid
from consisid_runtime.errors import ConsisIDError, OutputUnwritable
from consisid_runtime.events import Progress
from consisid_runtime.files.atomic import require_folder, write_file
from consisid_runtime.files.image_file import read_file
from consisid_runtime.files.json_file import read_json
from consisid_runtime.options import MAX_SEED, Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.stages.face.image import read_pixels

MADE_BY = "made-by.json"
"""File in the folder of videos that holds the bundle's fingerprint and the options."""
_REQUIRED, _SEED = ("portrait", "prompt"), "seed"


@dataclass(frozen=True, slots=True)
class Request:
    """One row of the table.

    Attributes:
        row: number of the row; the first after the header is 1.
        portrait: file.
        prompt: text.
        seed: None means the row's number.
        labels: attribute → class that the prompt asks for.
    """

    row: int
    portrait: Path
    prompt: str
    seed: int | None
    labels: dict[str, str]

    def __str__(self) -> str:
        return f"row {self.row} ({self.portrait.name})"


def read_requests(table: Path) -> list[Request]:
    """Every row of a table. Raises `CollectionInvalid`, naming the row, for an invalid table or cell."""
    root = Path(os.path.realpath(table)).parent
    header, rows = read_table(table, _REQUIRED)
    if taken := {"video", REFERENCE} & set(header):
        raise CollectionInvalid(f"{table} has the columns {', '.join(sorted(taken))}: it lists videos, not requests")
    return [_request(root, number, dict(zip(header, cells, strict=True))) for number, cells in enumerate(rows, 1)]


def generate_videos(
    pipeline: Pipeline, requests: list[Request], options: Options, out: Path, progress: Progress | None = None
) -> int:
    """Generate the videos that `out` does not hold yet; returns how many were generated. Resumable.

    Args:
        requests: row n becomes the video named n, with six digits.
        options: of every request; the seed comes from the row.
        out: a new folder, or one that an earlier run with the same bundle and options wrote.
        progress: called with (request, videos done, all videos).

    Raises `CollectionInvalid` for a folder written by another bundle or with other options, `OutputUnwritable`, and
    what `Pipeline.generate` raises, naming the row; videos finished before stay in the folder.
    """
    made_by = {"bundle": pipeline.bundle.fingerprint, "options": {**asdict(options), _SEED: None}}
    require_folder(out)
    marker = out / MADE_BY
    if marker.exists():
        if _made_by(marker) != made_by:
            raise CollectionInvalid(f"{out} was written by another bundle or with other options; give a new folder")
        writer = CollectionWriter(out, resumed=True)
    else:
        if any(out.iterdir()):
            raise OutputUnwritable(f"{out} has content but no {MADE_BY}; give a new folder")
        writer = CollectionWriter(out)
        write_file(marker, json.dumps(made_by, indent=1).encode() + b"\n", parents=True)
    done = 0
    for number, request in enumerate(requests):
        if progress:
            progress(str(request), number, len(requests))
        name = f"{request.row:06d}"
        if name in writer:
            continue
        seed = request.row if request.seed is None else request.seed
        try:
            photo = read_file(request.portrait)
            video = pipeline.generate(photo, request.prompt, replace(options, seed=seed))
        except ConsisIDError as error:
            raise type(error)(f"{request}: {error}") from error
        labels = request.labels
        writer.add(name, video.frames, read_pixels(photo), request.prompt, fps=video.fps, labels=labels)
        done += 1
    return done


def _made_by(marker: Path) -> Any:
    """What a folder's marker says; None where it is damaged."""
    try:
        return read_json(marker)
    except (OSError, ValueError):
        return None


def _request(root: Path, number: int, cells: dict[str, str]) -> Request:
    where = f"row {number}"
    require_filled(cells, _REQUIRED, where)
    seed = cells.get(_SEED, "")
    if seed and not (seed.isascii() and seed.isdigit() and int(seed) <= MAX_SEED):
        raise CollectionInvalid(f"{where}: seed must be a whole number from 0 to {MAX_SEED}, got {seed!r}")
    labels = {name: cell for name, cell in cells.items() if name not in (*_REQUIRED, _SEED) and cell}
    portrait = file_in(root, cells, "portrait", where)
    return Request(number, portrait, cells["prompt"], int(seed) if seed else None, labels)
