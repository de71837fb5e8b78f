"""H.264 in MP4: the same frames give the same bytes with the same codec library. Imports PyAV only where it is used."""

from __future__ import annotations

import io
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from consisid_runtime.cpus import default_threads
from consisid_runtime.errors import MissingExtra

if TYPE_CHECKING:
    from consisid_runtime.provenance.marks import Marks

Frames = NDArray[np.uint8]

_X264 = {"crf": "17", "bf": "0", "mbtree": "0"}
"""crf 17: compression is about invisible. Without B-frames and macroblock tree, since x264's rate control then reads
uninitialised memory, and the same frames give different bytes."""
_MOOV_BYTES, _MOOV_BYTES_PER_FRAME = 4096, 32
_SEI = 6
"""H.264's supplemental units; x264 writes its version and settings into one."""
_XMP = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
"""The type of the box with an XMP packet: XMP Specification Part 3."""


class Mp4Writer:
    """One file in memory, playable while it loads; made of frames that are added in any portions.

    Args:
        shape: of all frames together: [n ≥ 1, height, width, 3], height and width even.
        fps: frames per second.
        marks: what the file says of its origin; None for nothing.

    Raises `MissingExtra` where PyAV is absent.
    """

    def __init__(self, shape: tuple[int, ...], fps: int, marks: Marks | None = None) -> None:
        self._count, height, width, _ = shape
        if self._count == 0 or height % 2 or width % 2:
            raise ValueError(f"frames must be [n ≥ 1, even, even, 3], got {list(shape)}")
        self._av = av = _pyav()
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

        self._form = {"format": "yuv420p", "dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG}
        self._added, self._buffer = 0, io.BytesIO()
        # Space for the index is reserved ahead of the data; "faststart" would rewrite the file instead.
        tags = marks.tags if marks else {}
        size = _MOOV_BYTES + _MOOV_BYTES_PER_FRAME * self._count + sum(len(text.encode()) for text in tags.values())
        self._container = av.open(self._buffer, "w", format="mp4", options={"moov_size": str(size)})
        self._container.flags |= av.container.Flags.bitexact.value
        self._container.metadata.update(tags)
        self._behind = _xmp_box(marks.xmp) if marks else b""
        self._stream = stream = self._container.add_stream("libx264", rate=fps, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709.value, ColorTrc.BT709.value
        codec.colorspace, codec.color_range = Colorspace.ITU709.value, ColorRange.MPEG.value
        codec.open()
        self._anonymous = av.BitStreamFilterContext(f"filter_units=remove_types={_SEI}", stream)

    def add(self, frames: Frames) -> None:
        """Encode frames, uint8 [m, height, width, 3] RGB, behind those that were added before."""
        if frames.dtype != np.uint8:
            raise ValueError(f"frames must be uint8, got {frames.dtype}")
        for image in frames:
            picture = self._av.VideoFrame.from_ndarray(image, format="rgb24")
            self._write(picture.reformat(**self._form, threads=1))
        self._added += len(frames)

    def finish(self) -> bytes:
        """The file, when all frames are added."""
        if self._added != self._count:
            raise ValueError(f"the MP4 was begun for {self._count} frames and got {self._added}")
        self._write(None)
        self._container.close()
        return self._buffer.getvalue() + self._behind

    def _write(self, picture: object) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(self._anonymous.filter(packet))


def encode_mp4(frames: Frames, fps: int, marks: Marks | None = None) -> bytes:
    """The MP4 of frames, uint8 [n, height, width, 3] RGB. Raises as `Mp4Writer`."""
    writer = Mp4Writer(frames.shape, fps, marks)
    writer.add(frames)
    return writer.finish()


def encode_beside(
    chunks: Iterable[Frames], shape: tuple[int, ...], fps: int, marks: Marks | None = None
) -> tuple[Frames, bytes]:
    """All frames, and the MP4 of them, which a thread encodes while `chunks` makes the next ones.

    At most one chunk waits for the encoder, which has ended when this returns or raises: what `chunks` raises, or
    what the encoder does, with the chunk behind.

    Args:
        chunks: uint8 [m, height, width, 3] RGB, one after the other.
        shape: of all together: [n, height, width, 3].
        fps: frames per second.
        marks: as of `Mp4Writer`.

    Raises `MissingExtra` where PyAV is absent, before the first chunk is made.
    """
    writer, frames, done = Mp4Writer(shape, fps, marks), np.empty(shape, np.uint8), 0
    with ThreadPoolExecutor(1, "mp4") as encoder:
        latest: Future[None] | None = None
        for chunk in chunks:
            part = frames[done : done + len(chunk)]
            part[:] = chunk
            done += len(chunk)
            if latest is not None:
                latest.result()
            latest = encoder.submit(writer.add, part)
        if latest is not None:
            latest.result()
    return frames, writer.finish()


def decode_mp4(mp4: bytes) -> Frames:
    """uint8 [n, height, width, 3] RGB. Raises `MissingExtra` where PyAV is absent."""
    av = _pyav()
    with av.open(io.BytesIO(mp4)) as container:
        container.streams.video[0].codec_context.thread_count = default_threads()
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_tags(mp4: bytes) -> dict[str, str]:
    """The container's metadata by ffmpeg's names; an XMP packet as "xmp".

    Raises `ValueError` for what is no video file, `MissingExtra` where PyAV is absent.
    """
    av = _pyav()
    try:
        with av.open(io.BytesIO(mp4), options={"export_xmp": "1"}) as container:
            return dict(container.metadata)
    except av.error.FFmpegError as error:
        raise ValueError(f"no video file: {error.strerror}") from error


def _xmp_box(packet: str) -> bytes:
    content = b"uuid" + _XMP + packet.encode()
    return (4 + len(content)).to_bytes(4, "big") + content


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as missing:
        raise MissingExtra("reading or writing video needs PyAV: pip install 'consisid-runtime[run]'") from missing
    return av
