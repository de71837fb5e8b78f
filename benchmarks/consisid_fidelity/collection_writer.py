"""Writes a collection, a folder of videos with a table, video by video."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from consisid_fidelity.collection import REFERENCE, REQUIRED, TABLE, read_table
from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files.atomic import write_file
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.image import Pixels


class CollectionWriter:
    """Adds videos to a new folder, an empty folder or an existing collection.

    A video enters the table when all of its files are complete, so an interrupted run is resumable.

    Args:
        folder: of the collection.
        resumed: accept a folder with files but no table yet, left by an interrupted run.

    Raises `OutputUnwritable` for a folder with other content, `CollectionInvalid` for an invalid table.
    """

    def __init__(self, folder: Path, *, resumed: bool = False) -> None:
        self._folder, self._rows = folder, list[dict[str, str]]()
        if (folder / TABLE).exists():
            header, rows = read_table(folder / TABLE, REQUIRED)
            self._rows = [dict(zip(header, cells, strict=True)) for cells in rows]
        elif not resumed and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputUnwritable(f"{folder} has content but no {TABLE}; give a new folder")

    def __contains__(self, name: str) -> bool:
        return any(row["video"] == f"{name}.mkv" for row in self._rows)

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

        Videos are written losslessly (FFV1 in Matroska): H.264 in 4:2:0 would change the measured frames.

        Args:
            name: of the files, without extension.
            frames, reference: uint8 [F, H, W, 3] RGB.
            portrait: uint8 [H, W, 3] RGB.
            prompt: text that the video was generated from.
            fps: frames per second.
            labels: attribute → class that the prompt asked for.

        Raises `ValueError` for a name that is not a plain file name or is already used, and for a label named like a
        required column. Raises `OutputUnwritable`.
        """
        if not name or Path(name).name != name or name in self:
            raise ValueError(f"a video needs a new plain file name, got {name!r}")
        if taken := {*REQUIRED, REFERENCE} & set(labels or {}):
            raise ValueError(f"labels cannot be named {', '.join(sorted(taken))}")
        row = {"video": f"{name}.mkv", "portrait": f"{name}.png", "prompt": prompt} | (labels or {})
        write_file(self._folder / row["video"], encode_lossless(frames, fps), parents=True)
        write_file(self._folder / row["portrait"], _png(portrait), parents=True)
        if reference is not None:
            row[REFERENCE] = f"{name}.reference.mkv"
            write_file(self._folder / row[REFERENCE], encode_lossless(reference, fps), parents=True)
        write_file(self._folder / TABLE, _table([*self._rows, row]), parents=True)
        self._rows.append(row)


def encode_lossless(frames: Frames, fps: int) -> bytes:
    """FFV1 in Matroska, which decodes to the same frames, uint8 [F, H, W, 3] RGB; deterministic in its bytes."""
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


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _table(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys([*REQUIRED, *(name for row in rows for name in row)]))
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
