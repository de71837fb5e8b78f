"""A portrait and a prompt in, a video out, in one process."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import ForkedProcess
from consisid_runtime.events import Event, Progress, silent
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.identity import Identity
from consisid_runtime.memory.decide import Setting
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.plan import Plan
from consisid_runtime.stages import table
from consisid_runtime.stages.estimate import Estimate
from consisid_runtime.stages.face.faces import KEPT, Faces
from consisid_runtime.stages.flow import in_process
from consisid_runtime.stages.work import Work
from consisid_runtime.video import Video
from consisid_runtime.wire import Extras, describe


class Pipeline:
    """The stages over one bundle.

    Nothing is kept between calls but the loaded engines, the text states of the last negative prompts, and what was
    read of the last photographs, for an hour.

    The threads of the engines do not exist in a forked process: open a pipeline in the process that uses it.

    Attributes:
        bundle: as opened.
        stages: name → loaded stage, in the order of `stages.table`.
    """

    def __init__(self, bundle: Bundle, *, faces_kept: int = KEPT) -> None:
        self._process = os.getpid()
        self.bundle = bundle
        self.stages: dict[str, Any] = table.load(bundle)
        self._work = Work(bundle, Faces(faces_kept))

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        memory: Setting | None = None,
        faces_kept: int = KEPT,
    ) -> Pipeline:
        """Open the bundle at `path` and load every engine. Other arguments and errors as `Bundle.open`.

        Args:
            faces_kept: how many photographs' faces are remembered, a megabyte each; 0 reads each of them anew.
        """
        return cls(Bundle.open(path, device=device, threads=threads, memory=memory), faces_kept=faces_kept)

    def generate(
        self,
        image: str | Path | bytes | bytearray | Identity,
        prompt: str,
        options: Options | None = None,
        *,
        similarity: bool = False,
        progress: Progress = silent,
    ) -> Video:
        """Make one video.

        Args:
            image: the portrait: a path, a file's bytes (JPEG, PNG, WebP, …), or what `identify` returned.
            prompt: what the video shows, at most 64 KiB; at most the checkpoint's token limit is used. `info` reports
                where it was cut and what the vocabulary lacks, among its "warnings".
            options: see `Options`.
            similarity: also compare up to eight frames' faces with the portrait, in `info["similarity"]`.
            progress: called with (stage, done, total) when a stage begins and after each denoising step.

        Raises `InvalidRequest` subclasses for what cannot be done, before any network runs where neither a network nor
        the vocabulary is needed to see it; `ForkedProcess` in another process than the pipeline was opened in;
        `NotFinite` where the networks fail. The video's `info` is that of a served one.
        """
        request, values = self._begin(image, prompt, options)
        extras = Extras(similarity=similarity)
        parts = self._work.start(in_process(self.stages), values, request, extras=extras, whole=True, look=progress)
        *_, video = self._made(request, values, parts)
        assert isinstance(video, Video)
        return video

    def stream(
        self,
        image: str | Path | bytes | bytearray | Identity,
        prompt: str,
        options: Options | None = None,
        *,
        similarity: bool = False,
        previews: bool = False,
        checkpoint_seconds: float = 0.0,
        checkpoint: bytes | None = None,
    ) -> Iterator[Event | Video]:
        """Make one video, part by part: an event after each part, then the video, with the bytes of `generate`.

        Args:
            similarity: as for `generate`.
            previews: with about two events a second, a JPEG of the first frame as far as it can be foreseen.
            checkpoint_seconds: a checkpoint with an event whenever this many seconds have passed; 0 for none.
            checkpoint: go on from this one, of the same request, bundle and kind of device.

        Close the iterator to cancel. Raises as `generate`, what concerns the request at once, and `CheckpointRefused`.
        """
        extras = Extras(similarity=similarity, previews=previews, checkpoint_seconds=checkpoint_seconds)
        request, values = self._begin(image, prompt, options)
        parts = self._work.start(in_process(self.stages), values, request, extras=extras, checkpoint=checkpoint)
        return self._made(request, values, parts)

    def estimate(self, options: Options | None = None) -> Estimate:
        """What a video should take, by those that this pipeline has made; computes nothing.

        Raises as `generate` for options that cannot be done.
        """
        return self._work.estimate(self.bundle.plan(Options() if options is None else options))

    def identify(self, image: str | Path | bytes | bytearray, options: Options | None = None) -> Identity:
        """Read a face once, for any number of videos; it is known for an hour, and while this pipeline exists.

        Args:
            options: `face_index` and `keypoints` are used; the videos need the same.

        Raises as `generate` for an image.
        """
        request, values = self._begin(image, "a face", options)
        return self._work.identify(in_process(self.stages), values["image"], request)

    def forget(self, identity: Identity) -> None:
        """Forget an identity now, and what was read of its photograph unless another stands for it. Idempotent."""
        self._work.faces.forget(identity.handle)

    def _made(
        self, request: Plan, values: table.Values, parts: Generator[Event, None, dict[str, table.Info]]
    ) -> Iterator[Event | Video]:
        reports = yield from parts
        yield self._video(request, values, reports)

    def _begin(
        self, image: str | Path | bytes | bytearray | Identity, prompt: str, options: Options | None
    ) -> tuple[Plan, table.Values]:
        request = self.bundle.plan(Options() if options is None else options)
        values: table.Values = {"prompt": check_prompt(prompt)}
        values |= {"identity": image.handle} if isinstance(image, Identity) else {"image": image_bytes(image)}
        if self._process != os.getpid():
            raise ForkedProcess(
                f"the pipeline was opened in process {self._process}, and process {os.getpid()} was forked from it: "
                "the engines' threads are missing here"
            )
        return request, values

    def _video(self, request: Plan, values: table.Values, reports: dict[str, table.Info]) -> Video:
        memory = {} if self.bundle.memory is None else {"memory": self.bundle.memory.to_json()}
        return Video(
            mp4=values["video"],
            frames=values["frames"],
            fps=request.options.fps,
            info=describe(request, self.bundle.fingerprint, reports) | memory,
        )
