"""A folder of videos with their portraits and prompts, by whatever system made them.

    videos.csv      video,portrait,prompt[,reference][,attribute …]
    …               the files it names, by paths relative to the folder

`reference` is a video of the same person, prompt and noise to be compared with. Every further column is an attribute of
what the prompt asked for, for prompt accuracy. A cell of these may be empty. Any container and codec that FFmpeg reads
will do, animated GIFs too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from consisid_export.folders import replacing
from consisid_runtime.errors import CollectionInvalid, ConsisIDError, VideoUnreadable
from consisid_runtime.image import Pixels, read_pixels
from consisid_runtime.image_file import read_file
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
    header, rows = _read_table(folder / TABLE)
    items = [_item(root, number, dict(zip(header, cells, strict=True))) for number, cells in enumerate(rows, 1)]
    seen: dict[Path, Item] = {}
    for item in items:
        if item.video in seen:
            raise CollectionInvalid(f"{item}: row {seen[item.video].row} names the same video; list each once")
        seen[item.video] = item
    return items


class CollectionWriter:
    """Adds videos to a folder that `writing_collection` opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows: list[dict[str, str]] = []

    def add(
        self,
        name: str,
        frames: Frames,
        portrait: Pixels,
        prompt: str,
        *,
        fps: int,
        reference: Frames | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Add one video, its portrait and, if given, its reference.

        Videos are written without loss (FFV1 in Matroska): H.264 in 4:2:0 would blur what is to be measured.

        Args:
            name: of its files, without ending.
            frames, reference: uint8 [F, H, W, 3] RGB.
            portrait: uint8 [H, W, 3] RGB.
            prompt: what was asked for.
            fps: frames per second.
            labels: attribute → what the prompt asked for.

        Raises `ValueError` for a name that is no plain file name, or was used before, or a label named like a column.
        """
        if not name or Path(name).name != name or any(row["video"] == f"{name}.mkv" for row in self.rows):
            raise ValueError(f"a video needs a file name of its own, got {name!r}")
        if taken := {*REQUIRED, REFERENCE} & set(labels or {}):
            raise ValueError(f"labels cannot be named {', '.join(sorted(taken))}")
        row = {"video": f"{name}.mkv", "portrait": f"{name}.png", "prompt": prompt} | (labels or {})
        (self._folder / row["video"]).write_bytes(encode_lossless(frames, fps))
        Image.fromarray(portrait).save(self._folder / row["portrait"])
        if reference is not None:
            row[REFERENCE] = f"{name}.reference.mkv"
            (self._folder / row[REFERENCE]).write_bytes(encode_lossless(reference, fps))
        self.rows.append(row)


@contextmanager
def writing_collection(folder: Path) -> Iterator[CollectionWriter]:
    """Write a folder of videos, all or nothing; `folder` must not exist or be empty.

    Raises `OutputUnwritable`.
    """
    with replacing(folder, TABLE) as fresh:
        writer = CollectionWriter(fresh)
        yield writer
        columns = list(dict.fromkeys([*REQUIRED, *(name for row in writer.rows for name in row)]))
        with (fresh / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(writer.rows)


def encode_lossless(frames: Frames, fps: int) -> bytes:
    """FFV1 in Matroska, whose frames decode to the same uint8 [F, H, W, 3] RGB; the same frames give the same bytes."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        stream.codec_context.thread_count = 1
        for image in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return buffer.getvalue()


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines: Iterable[list[str]] = [cells for cells in csv.reader(file, strict=True) if cells]
    except OSError as error:
        raise CollectionInvalid(
            f"{path} cannot be read: {error.strerror}; it lists the videos, with the columns {', '.join(REQUIRED)}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionInvalid(f"{path} is no table of comma-separated values in UTF-8: {error}") from error
    header, *rows = [[cell.strip() for cell in cells] for cells in lines] or [[]]
    if absent := [name for name in REQUIRED if name not in header]:
        raise CollectionInvalid(f"{path} lacks the columns {', '.join(absent)}; its first line is {','.join(header)!r}")
    if "" in header or len(set(header)) != len(header):
        raise CollectionInvalid(f"{path} has columns without a name, or two of one name: {','.join(header)!r}")
    if not rows:
        raise CollectionInvalid(f"{path} lists no videos")
    for number, cells in enumerate(rows, 1):
        if len(cells) != len(header):
            raise CollectionInvalid(
                f"{path.name}, row {number}: {len(cells)} cells for {len(header)} columns; quote what has a comma"
            )
    return header, rows


def _item(root: Path, number: int, cells: dict[str, str]) -> Item:
    where = f"{TABLE}, row {number}"
    if empty := [name for name in REQUIRED if not cells[name]]:
        raise CollectionInvalid(f"{where}: {', '.join(empty)} is empty")

    def file(column: str) -> Path:
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

    labels = {name: cell for name, cell in cells.items() if name not in (*REQUIRED, REFERENCE) and cell}
    reference = file(REFERENCE) if cells.get(REFERENCE) else None
    return Item(number, cells["video"], file("video"), file("portrait"), cells["prompt"], reference, labels)


def _read_video(path: Path, where: str) -> Frames:
    import av

    try:
        frames: npt.NDArray[np.uint8] = decode_mp4(path.read_bytes())
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise VideoUnreadable(f"{where}: {path.name} holds no video that FFmpeg can read: {error}") from error
    return frames
