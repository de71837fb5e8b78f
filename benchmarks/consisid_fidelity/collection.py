"""Reads a collection: a folder of videos, made by any system, with their portraits and prompts.

    videos.csv      video,portrait,prompt[,reference][,attribute …]
    …               the files that it names, by paths relative to the folder

`reference` is a video of the same person, prompt and noise to compare with. Every further column is an attribute whose
cell holds the class that the prompt asked for, for prompt accuracy. `reference` and attribute cells may be empty. A
video may have any container and codec that FFmpeg reads, including animated GIF.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consisid_fidelity.errors import CollectionInvalid, VideoUnreadable
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.files.image_file import read_file
from consisid_runtime.mp4 import Frames, decode_mp4
from consisid_runtime.stages.face.image import Pixels, read_pixels

TABLE = "videos.csv"
REQUIRED = ("video", "portrait", "prompt")
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the table.

    Attributes:
        row: number of the row; the first after the header is 1.
        name: the cell `video`.
        video, portrait: files.
        prompt: text that the video was generated from.
        reference: file of the video to compare with, or None.
        labels: attribute → class that the prompt asked for.
    """

    row: int
    name: str
    video: Path
    portrait: Path
    prompt: str
    reference: Path | None
    labels: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{TABLE}, row {self.row} ({self.name})"

    def frames(self) -> Frames:
        """The video, uint8 [F, H, W, 3] RGB. Raises `VideoUnreadable`, naming the row."""
        return _read_video(self.video, str(self))

    def reference_frames(self) -> Frames | None:
        """The video to compare with, or None. Raises `VideoUnreadable`, naming the row."""
        return None if self.reference is None else _read_video(self.reference, str(self))

    def portrait_pixels(self) -> Pixels:
        """uint8 [H, W, 3] RGB. Raises the errors of `read_pixels`, naming the row."""
        try:
            return read_pixels(read_file(self.portrait))
        except ConsisIDError as error:
            raise type(error)(f"{self}: portrait {self.portrait.name}: {error}") from error


def read_collection(folder: Path) -> list[Item]:
    """The rows of `folder`'s table. Checks that the files exist, without reading them.

    Raises `CollectionInvalid`, naming the row, for a table that is missing, empty or lacks a column, an empty required
    cell, a path outside the folder, a missing file, or a video listed twice.
    """
    root = Path(os.path.realpath(folder))  # never raises
    header, rows = read_table(folder / TABLE, REQUIRED)
    items = [_item(root, number, dict(zip(header, cells, strict=True))) for number, cells in enumerate(rows, 1)]
    seen: dict[Path, Item] = {}
    for item in items:
        if item.video in seen:
            raise CollectionInvalid(f"{item}: row {seen[item.video].row} names the same video; list each once")
        seen[item.video] = item
    return items


def read_table(path: Path, required: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and cells of the rows. Raises `CollectionInvalid` when a required column is missing."""
    try:
        if path.exists() and not path.is_file():
            raise CollectionInvalid(f"{path} is a folder, device or pipe; name a table")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines: Iterable[list[str]] = [cells for cells in csv.reader(file, strict=True) if cells]
    except OSError as error:
        raise CollectionInvalid(
            f"{path} cannot be read: {error.strerror}; a table with these columns is needed: {', '.join(required)}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionInvalid(f"{path} is not a table of comma-separated values in UTF-8: {error}") from error
    header, *rows = [[cell.strip() for cell in cells] for cells in lines] or [[]]
    if absent := [name for name in required if name not in header]:
        raise CollectionInvalid(f"{path} lacks the columns {', '.join(absent)}; its first line is {','.join(header)!r}")
    if "" in header or len(set(header)) != len(header):
        raise CollectionInvalid(f"{path} has columns without a name or with the same name: {','.join(header)!r}")
    if not rows:
        raise CollectionInvalid(f"{path} has no rows")
    for number, cells in enumerate(rows, 1):
        if len(cells) != len(header):
            raise CollectionInvalid(
                f"{path.name}, row {number}: {len(cells)} cells for {len(header)} columns; quote cells with a comma"
            )
    return header, rows


def require_filled(cells: dict[str, str], required: Sequence[str], where: str) -> None:
    """Raises `CollectionInvalid` when a required cell is empty."""
    if empty := [name for name in required if not cells[name]]:
        raise CollectionInvalid(f"{where}: {', '.join(empty)} is empty")


def file_in(root: Path, cells: dict[str, str], column: str, where: str) -> Path:
    """The file that a cell names. Raises `CollectionInvalid` unless it is a file inside `root`."""
    path = root / cells[column]
    try:
        resolved = path.resolve()
        inside, exists = resolved.is_relative_to(root), resolved.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # cyclic links, names that are too long, a NUL
        raise CollectionInvalid(f"{where}: {column} {cells[column]!r} is not a path: {error}") from error
    if not inside:
        raise CollectionInvalid(f"{where}: {column} {cells[column]!r} is outside the folder; copy the file into it")
    if not exists:
        raise CollectionInvalid(f"{where}: {column} {cells[column]!r} is not a file in the folder")
    return resolved


def _item(root: Path, number: int, cells: dict[str, str]) -> Item:
    where = f"{TABLE}, row {number}"
    require_filled(cells, REQUIRED, where)
    video, portrait = (file_in(root, cells, column, where) for column in ("video", "portrait"))
    reference = file_in(root, cells, REFERENCE, where) if cells.get(REFERENCE) else None
    labels = {name: cell for name, cell in cells.items() if name not in (*REQUIRED, REFERENCE) and cell}
    return Item(number, cells["video"], video, portrait, cells["prompt"], reference, labels)


def _read_video(path: Path, where: str) -> Frames:
    import av

    try:
        frames: npt.NDArray[np.uint8] = decode_mp4(path.read_bytes())
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise VideoUnreadable(f"{where}: {path.name} is not a video that FFmpeg can read: {error}") from error
    return frames
