"""A request for a video, and the video in its answer. No input or output: both clients share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consisid_runtime.client.answer import check_answer, read_info
from consisid_runtime.client.transport import Parameters
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.signatures import ENSEMBLE, Port
from consisid_runtime.video import Video
from consisid_runtime.wire import Extras, write_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the model.

    Attributes:
        outputs: what is wanted of the model's.
        fps: of the video.
    """

    model: str
    inputs: Mapping[str, bytes | str]
    parameters: Parameters
    outputs: tuple[Port, ...]
    fps: int

    @classmethod
    def make(cls, image: bytes, prompt: str, options: Options | None, *, raw_frames: bool) -> Request:
        """Raises what `check_prompt` raises."""
        chosen = options or Options()
        return cls(
            ENSEMBLE.name,
            {"image": image, "prompt": check_prompt(prompt)},
            write_parameters(chosen, Extras(raw_frames=raw_frames)),
            tuple(port for port in ENSEMBLE.outputs if raw_frames or port.name != "frames"),
            chosen.fps,
        )

    def video(self, answer: Mapping[str, NDArray[Any]]) -> Video:
        """Raises `ServerError` for an answer that is none of this request."""
        check_answer(self.outputs, answer)
        return Video(
            mp4=answer["video"].tobytes(),
            frames=answer.get("frames"),
            fps=self.fps,
            info=read_info(answer["info"][0]),
        )
