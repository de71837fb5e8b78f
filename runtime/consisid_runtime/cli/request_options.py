"""The flags of `Options`, and others that several commands have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from consisid_runtime.errors import InvalidOption
from consisid_runtime.option_names import meant
from consisid_runtime.options import KEYPOINTS, SCHEDULERS, Options
from consisid_runtime.tiers import TIERS

CA = Annotated[
    Path | None,
    typer.Option("--ca", help="PEM file of the certificate authorities to trust. Default: those of the system."),
]

_FLAGS: dict[str, tuple[Any, str]] = {
    "negative_prompt": (str, "What the video should not show."),
    "seed": (int, "The same seed gives the same video."),
    "tier": (str, f"One of {', '.join(TIERS)}. Default: the bundle's first."),
    "steps": (int, "Denoising steps, 1 to 1000. Default: the tier's."),
    "guidance": (float, "Guidance scale; at 1 or below there is no guidance. Default: the tier's."),
    "dynamic_guidance": (bool, "Increase the guidance scale over the steps as the reference does."),
    "frames": (int, "Frames, 8k + 1. Default: the checkpoint's."),
    "height": (int, "Height in pixels. Default: the checkpoint's."),
    "width": (int, "Width in pixels. Default: the checkpoint's."),
    "fps": (int, "Frames per second of the MP4."),
    "scheduler": (str, f"One of {', '.join(SCHEDULERS)}."),
    "face_index": (str, 'Number of the face, 0 is the largest; "only" refuses several faces. Default: the largest.'),
    "face_scale": (float, "Strength of the local identity path."),
    "global_identity": (bool, "Use the low-frequency identity path."),
    "local_identity": (bool, "Use the high-frequency identity path."),
    "keypoints": (str, f"Keypoint coordinates, one of {', '.join(KEYPOINTS)}."),
}


class OptionCommand(TyperCommand):
    """A command that names the option of this project for one of diffusers, or a mistyped one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer has click's classes in one version, its own in another
            option = meant(getattr(error, "option_name", ""), _FLAGS)
            if option and hasattr(error, "possibilities"):
                error.possibilities = [f"--{option.replace('_', '-')}"]
            raise


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with one flag for each option, made from `command`, which takes `options: Options`."""

    def run(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in _FLAGS}
        chosen["face_index"] = _face_index(chosen["face_index"])
        command(**values, options=Options(**chosen))

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]
    flags = [_flag(field.name, field.default) for field in fields(Options)]
    parameters = [*own, *flags]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    return run


def _flag(name: str, default: Any) -> inspect.Parameter:
    kind, help_text = _FLAGS[name]
    option = typer.Option(help=help_text)
    annotation: Any = Annotated[kind | None, option] if default is None else Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _face_index(text: str | None) -> Any:
    if text is None or text == "only":
        return text
    try:
        return int(text)
    except ValueError:
        raise InvalidOption(f'face_index must be a whole number or "only", got {text!r}') from None
