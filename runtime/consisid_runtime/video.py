"""The finished video as frames, MP4 bytes and a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.atomic import write_file
from consisid_runtime.mp4 import Frames, decode_mp4, encode_mp4

if TYPE_CHECKING:
    from consisid_runtime.provenance.credentials import Signer


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

    def signed(self, signer: Signer) -> Video:
        """The same with content credentials in the MP4. Raises `SigningFailed`, and `MissingExtra` without c2pa."""
        from consisid_runtime.provenance.credentials import sign

        return Video(mp4=sign(self.mp4, signer), frames=self._frames, fps=self.fps, info=self.info)

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
