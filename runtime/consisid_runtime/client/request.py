"""A request for a video, and the video in its answer. No input or output: both clients share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consisid_runtime.client.answer import check_answer, check_ports, read_info
from consisid_runtime.client.transport import Parameters
from consisid_runtime.events import Event
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.signatures import ENSEMBLE, STREAM, Port
from consisid_runtime.video import Video
from consisid_runtime.wire import HIGHEST, PRIORITY, Extras, write_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_EVENTS = ("event", "preview", "checkpoint")
"""Outputs of a stream before its last answer."""


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
    def make(
        cls, image: bytes, prompt: str, options: Options | None, extras: Extras, *, urgent: bool = False
    ) -> Request:
        """Raises what `check_prompt` raises."""
        chosen = options or Options()
        return cls(
            ENSEMBLE.name,
            {"image": image, "prompt": check_prompt(prompt)},
            _parameters(chosen, extras, urgent=urgent),
            tuple(port for port in ENSEMBLE.outputs if extras.raw_frames or port.name != "frames"),
            chosen.fps,
        )

    @classmethod
    def make_action(cls, image: bytes | None, options: Options | None, extras: Extras) -> Request:
        """One that is answered with an `info` alone."""
        chosen = options or Options()
        inputs: dict[str, bytes | str] = {} if image is None else {"image": image}
        outputs = tuple(port for port in STREAM.outputs if port.name in ("event", "info"))
        return cls(STREAM.name, inputs, write_parameters(chosen, extras), outputs, chosen.fps)

    @classmethod
    def make_stream(
        cls,
        image: bytes | None,
        prompt: str,
        options: Options | None,
        extras: Extras,
        checkpoint: bytes | None,
        *,
        urgent: bool = False,
    ) -> Request:
        """One that is answered with events first. Raises what `check_prompt` raises.

        Args:
            image: None where `extras` names an identity.
        """
        chosen = options or Options()
        inputs: dict[str, bytes | str] = {"prompt": check_prompt(prompt)}
        if image is not None:
            inputs["image"] = image
        if checkpoint is not None:
            inputs["checkpoint"] = checkpoint
        unwanted = {"frames"}
        unwanted |= set() if extras.previews else {"preview"}
        unwanted |= set() if extras.checkpoint_seconds else {"checkpoint"}
        outputs = tuple(port for port in STREAM.outputs if port.name not in unwanted)
        return cls(STREAM.name, inputs, _parameters(chosen, extras, urgent=urgent), outputs, chosen.fps)

    def item(self, answer: Mapping[str, NDArray[Any]]) -> Event | Video:
        """What one answer of a stream says. Raises `ServerError` for one that is none of this request."""
        if "event" not in answer:
            return self.video(answer)
        ports = [port for port in self.outputs if port.name in _OF_EVENTS and port.name in answer]
        check_ports(ports, answer)
        preview, checkpoint = (answer[name].tobytes() if name in answer else None for name in _OF_EVENTS[1:])
        return Event.from_json(answer["event"][0], preview or None, checkpoint or None)

    def report(self, answer: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The `info` of an answer without a video. Raises `ServerError` for another one."""
        check_ports([port for port in self.outputs if port.name == "info"], answer)
        return read_info(answer["info"][0])

    def video(self, answer: Mapping[str, NDArray[Any]]) -> Video:
        """Raises `ServerError` for an answer that is none of this request."""
        check_answer([port for port in self.outputs if port.name not in _OF_EVENTS], answer)
        return Video(
            mp4=answer["video"].tobytes(),
            frames=answer.get("frames"),
            fps=self.fps,
            info=read_info(answer["info"][0]),
        )


def _parameters(options: Options, extras: Extras, *, urgent: bool) -> Parameters:
    return write_parameters(options, extras) | ({PRIORITY: HIGHEST} if urgent else {})
