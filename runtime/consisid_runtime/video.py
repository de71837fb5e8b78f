"""The finished video as frames, MP4 bytes and a file. Imports PyAV only where it encodes or decodes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consisid_runtime.cpus import default_threads
from consisid_runtime.errors import InvalidOption, MissingExtra
from consisid_runtime.files.atomic import write_file

Frames = NDArray[np.uint8]

_X264 = {"crf": "17", "bf": "0", "mbtree": "0"}
"""crf 17: compression is about invisible. Without B-frames and macroblock tree, since x264's rate control then reads
uninitialised memory, and the same frames give different bytes."""
_MOOV_BYTES, _MOOV_BYTES_PER_FRAME = 4096, 32
_SEI = 6
"""H.264's supplemental units; x264 writes its version and settings into one."""


class Video:
    """A generated video, as frames, as MP4 bytes, or as both.

    Args:
        mp4: an H.264 file's bytes; made from the frames when first asked for if None.
        frames: uint8 [n, height, width, 3] RGB; decoded from the MP4 when first asked for if None.
        fps: frames per second.
        info: seed, sizes, seconds of each stage and the rest of `wire.describe`.
    """

    def __init__(
        self, *, mp4: bytes | None = None, frames: Frames | None = None, fps: int, info: Mapping[str, Any] | None = None
    ) -> None:
        if mp4 is None and frames is None:
            raise ValueError("a video needs frames or MP4 bytes, got neither")
        self._mp4 = mp4
        self._frames = frames
        self.fps = fps
        self.info = dict(info or {})

    @property
    def mp4(self) -> bytes:
        if self._mp4 is None:
            self._mp4 = encode_mp4(self.frames, self.fps)
        return self._mp4

    @property
    def frames(self) -> Frames:
        """uint8 [n, height, width, 3] RGB. Decoding them from an MP4 raises `MissingExtra` where PyAV is absent."""
        if self._frames is None:
            assert self._mp4 is not None
            self._frames = decode_mp4(self._mp4)
        return self._frames

    def save(self, path: str | Path) -> None:
        """Write the MP4 atomically; symbolic links are followed.

        Raises `InvalidOption` for a name that does not end in .mp4, `OutputUnwritable` with the reason; what is no
        regular file is not replaced.
        """
        require_video_path(path)
        write_file(path, self.mp4)


def require_video_path(path: str | Path, portrait: str | Path | None = None) -> None:
    """Raises `InvalidOption` for a name that does not end in .mp4, or for the portrait's file by any of its names."""
    if Path(path).suffix.lower() != ".mp4":
        raise InvalidOption(f"the video is an MP4 file: its name must end in .mp4, got {str(path)!r}")
    if portrait is None:
        return
    try:
        same = os.path.samefile(path, portrait)
    except (OSError, ValueError):  # one of them does not exist, or is no path
        return
    if same:
        raise InvalidOption(f"{str(path)!r} is the portrait itself; choose another name for the video")


def encode_mp4(frames: Frames, fps: int) -> bytes:
    """H.264 in MP4, playable while it loads; the same frames give the same bytes with the same codec library.

    Args:
        frames: uint8 [n, height, width, 3] RGB, height and width even.
        fps: frames per second.

    Raises `MissingExtra` where PyAV is absent.
    """
    count, height, width, _ = frames.shape
    if frames.dtype != np.uint8 or count == 0 or height % 2 or width % 2:
        raise ValueError(f"frames must be uint8 [n ≥ 1, even, even, 3], got {frames.dtype} {list(frames.shape)}")
    av = _pyav()
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    buffer = io.BytesIO()
    # Space for the index is reserved ahead of the data; "faststart" would rewrite the file instead.
    index = {"moov_size": str(_MOOV_BYTES + _MOOV_BYTES_PER_FRAME * count)}
    with av.open(buffer, "w", format="mp4", options=index) as container:
        container.flags |= av.container.Flags.bitexact.value
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709.value, ColorTrc.BT709.value
        codec.colorspace, codec.color_range = Colorspace.ITU709.value, ColorRange.MPEG.value
        codec.open()
        anonymous = av.BitStreamFilterContext(f"filter_units=remove_types={_SEI}", stream)
        for image in frames:
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
            for packet in stream.encode(picture):
                container.mux(anonymous.filter(packet))
        for packet in stream.encode(None):
            container.mux(anonymous.filter(packet))
    return buffer.getvalue()


def decode_mp4(mp4: bytes) -> Frames:
    """uint8 [n, height, width, 3] RGB. Raises `MissingExtra` where PyAV is absent."""
    av = _pyav()
    with av.open(io.BytesIO(mp4)) as container:
        container.streams.video[0].codec_context.thread_count = default_threads()
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as missing:
        raise MissingExtra("reading or writing video needs PyAV: pip install 'consisid-runtime[run]'") from missing
    return av
