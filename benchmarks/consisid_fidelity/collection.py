"""A folder of videos with their portraits and prompts, by whatever system made them.

    videos.csv      video,portrait,prompt[,reference][,attribute …]
    …               the files it names, by paths relative to the folder

`reference` is a video of the same person, prompt and noise to be compared with. Every further column is an attribute of
what the prompt asked for, for prompt accuracy. A cell of these may be empty. Any container and codec that FFmpeg reads
will do, animated GIFs too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consisid_fidelity.errors import CollectionInvalid, VideoUnreadable
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.files.image_file import read_file
from consisid_runtime.stages.face.image import Pixels, read_pixels
from consisid_runtime.video import Frames, decode_mp4

TABLE = "videos.csv"
REQUIRED = ("video", "portrait", "prompt")
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Item:
    """One row.

    Attributes:
        row: its number in the table, the first after the header is 1.
        name: of the video, as the table spells it.
        video, portrait: files.
        prompt: what was asked for.
        reference: the video to compare with, or None.
        labels: attribute → what the prompt asked for.
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
        """uint8 [H, W, 3] RGB. Raises what `read_pixels` does, naming the row."""
        try:
            return read_pixels(read_file(self.portrait))
        except ConsisIDError as error:
            raise type(error)(f"{self}: portrait {self.portrait.name}: {error}") from error


def read_collection(folder: Path) -> list[Item]:
    """The rows of `folder`'s table. Files are there, but not read yet.

    Raises `CollectionInvalid`, naming the row, for a table that is missing, empty or lacks a column, an empty cell
    where one is needed, a path that leaves the folder, a file that is not there, or a video listed twice.
    """
    root = folder.resolve()
    header, rows = read_table(folder / TABLE, REQUIRED)
    items = [_item(root, number, dict(zip(header, cells, strict=True))) for number, cells in enumerate(rows, 1)]
    seen: dict[Path, Item] = {}
    for item in items:
        if item.video in seen:
            raise CollectionInvalid(f"{item}: row {seen[item.video].row} names the same video; list each once")
        seen[item.video] = item
    return items


def read_table(path: Path, required: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and cells of the rows. Raises `CollectionInvalid` where these columns are not there."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines: Iterable[list[str]] = [cells for cells in csv.reader(file, strict=True) if cells]
    except OSError as error:
        raise CollectionInvalid(
            f"{path} cannot be read: {error.strerror}; it has to be a table with the columns {', '.join(required)}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionInvalid(f"{path} is no table of comma-separated values in UTF-8: {error}") from error
    header, *rows = [[cell.strip() for cell in cells] for cells in lines] or [[]]
    if absent := [name for name in required if name not in header]:
        raise CollectionInvalid(f"{path} lacks the columns {', '.join(absent)}; its first line is {','.join(header)!r}")
    if "" in header or len(set(header)) != len(header):
        raise CollectionInvalid(f"{path} has columns without a name, or two of one name: {','.join(header)!r}")
    if not rows:
        raise CollectionInvalid(f"{path} has no rows")
    for number, cells in enumerate(rows, 1):
        if len(cells) != len(header):
            raise CollectionInvalid(
                f"{path.name}, row {number}: {len(cells)} cells for {len(header)} columns; quote what has a comma"
            )
    return header, rows


def require_filled(cells: dict[str, str], required: Sequence[str], where: str) -> None:
    """Raises `CollectionInvalid` where one of the cells is empty."""
    if empty := [name for name in required if not cells[name]]:
        raise CollectionInvalid(f"{where}: {', '.join(empty)} is empty")


def file_in(root: Path, cells: dict[str, str], column: str, where: str) -> Path:
    """The file that a cell names. Raises `CollectionInvalid` where it is none inside of `root`."""
    path = root / cells[column]
    try:
        resolved = path.resolve()
        inside, there = resolved.is_relative_to(root), resolved.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # circles of links, names too long, a NUL
        raise CollectionInvalid(f"{where}: {column} {cells[column]!r} is no path: {error}") from error
    if not inside:
        raise CollectionInvalid(f"{where}: {column} {cells[column]!r} leaves the folder; copy the file into it")
    if not there:
        raise CollectionInvalid(f"{where}: {column} {cells[column]!r} is no file in the folder")
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
        raise VideoUnreadable(f"{where}: {path.name} holds no video that FFmpeg can read: {error}") from error
    return frames
