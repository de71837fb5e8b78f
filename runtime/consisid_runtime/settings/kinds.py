"""Types of settings, and what each accepts, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from consisid_runtime.door.proxies import Proxies
from consisid_runtime.door.traces import endpoint
from consisid_runtime.engines import DEVICES, check_device
from consisid_runtime.errors import InvalidOption
from consisid_runtime.memory.decide import Setting, check_memory, read_setting
from consisid_runtime.memory.plan import AUTO, SETTINGS
from consisid_runtime.serve.layout import check as check_layout
from consisid_runtime.serve.repository import LAYOUTS


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a setting accepts, where its type and its bounds do not say it.

    Attributes:
        shown: in an error; what was given may hold a secret else.
    """

    text: str
    shown: bool = True


def _as_value_error(check: Callable[[Any], None]) -> Callable[[Any], Any]:
    """pydantic gathers no other errors."""

    def run(value: Any) -> Any:
        try:
            check(value)
        except InvalidOption as error:
            raise ValueError(str(error)) from error
        return value

    return run


def _require_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path has no NUL")
    return path


def _read_memory(value: Any) -> Any:
    return read_setting(value) if isinstance(value, str) else value


File = Annotated[Path, AfterValidator(_require_path), Wanted("a path")]
Device = Annotated[str, AfterValidator(_as_value_error(check_device)), Wanted(", ".join(DEVICES))]
Layout = Annotated[
    str,
    AfterValidator(_as_value_error(lambda layout: check_layout(layout, None))),
    Wanted(", ".join((AUTO, *LAYOUTS))),
]
Memory = Annotated[
    Setting,
    BeforeValidator(_read_memory),
    AfterValidator(_as_value_error(check_memory)),
    Wanted(", ".join([*map(str, SETTINGS), AUTO])),
]
Hook = Annotated[str, Field(pattern=r"^[^:\s]+:[^:\s]+$"), Wanted("module:function")]
Host = Annotated[str, Field(min_length=1), Wanted("an address or a name of this machine")]
Addresses = Annotated[
    str,
    AfterValidator(_as_value_error(Proxies.read)),
    Wanted("IP addresses and networks, separated by commas"),
]
Collector = Annotated[str, AfterValidator(_as_value_error(endpoint)), Wanted("a URL such as http://collector:4318")]
Level = Annotated[Literal["info", "warning", "error"], Wanted("info, warning, error")]
Port = Annotated[int, Field(ge=0, le=65535)]


def number(default: float | None, least: float, most: float, text: str) -> Any:
    """A field with bounds."""
    return Field(default, ge=least, le=most, description=text)


def accepts(field: FieldInfo) -> str:
    """What a setting accepts: "a whole number from 1 to 4096"."""
    kinds, found = _kinds(field), _metadata(field)
    if text := next((part.text for part in found if isinstance(part, Wanted)), None):
        return str(text)
    if bool in kinds:
        return "true or false"
    least, most = (next(getattr(part, end) for part in found if hasattr(part, end)) for end in ("ge", "le"))
    return f"a number from {least:.10g} to {most:.10g}" if float in kinds else f"a whole number from {least} to {most}"


def is_shown(field: FieldInfo) -> bool:
    """Whether an error may show what was given."""
    return all(part.shown for part in _metadata(field) if isinstance(part, Wanted))


def _kinds(field: FieldInfo) -> list[Any]:
    return [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not type(None)]


def _metadata(field: FieldInfo) -> list[Any]:
    inside = [part for kind in _kinds(field) for part in getattr(kind, "__metadata__", ())]
    return [*field.metadata, *inside, *(bound for part in inside for bound in getattr(part, "metadata", ()))]
