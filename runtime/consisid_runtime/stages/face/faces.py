"""Keeps what the face stage read, so that a further prompt for one portrait runs no face network.

By the content of the photograph, and by handles that stand for it. Bounded in number and time; in memory only.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consisid_runtime.errors import IdentityExpired, InvalidOption

if TYPE_CHECKING:
    from consisid_runtime.events import Progress
    from consisid_runtime.plan import Plan
    from consisid_runtime.stages.flow import Call
    from consisid_runtime.stages.table import Info, Stage, Values

KEPT = 64
"""Faces; one has about a megabyte."""
SECONDS = 3600.0

_Options = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    photo: bytes
    options: _Options
    outputs: Values
    info: Info
    until: float


class Faces:
    """What was read of the latest faces.

    Args:
        kept: faces, and as many handles, at most.
        seconds: after which one is forgotten, counted from when it was read.

    Raises `InvalidOption` for less than none, and for no time.
    """

    def __init__(self, kept: int = KEPT, seconds: float = SECONDS) -> None:
        if kept < 0 or not seconds > 0:
            raise InvalidOption(f"faces are kept from 0 on, for more than 0 seconds; got {kept} for {seconds:g} s")
        self._kept, self._seconds = kept, seconds
        self._by_content: OrderedDict[tuple[bytes, _Options], _Read] = OrderedDict()
        self._by_handle: OrderedDict[str, _Read] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of the arrays that it holds."""
        reads = {id(read): read for kept in (self._by_content, self._by_handle) for read in kept.values()}
        return sum(_bytes(value) for read in reads.values() for value in read.outputs.values())

    def kept(self, call: Call) -> Call:
        """`call`, whose face stage reads nothing twice. It also takes "identity", a handle, in place of "image"."""

        def remembered(
            stage: Stage, values: Values, plan: Plan, reports: Mapping[str, Info], look: Progress
        ) -> tuple[Values, Info]:
            if stage.name != "face":
                return call(stage, values, plan, reports, look)
            if "identity" in values:
                read, known = self._find(str(values["identity"]), plan), True
            else:
                read, known = self._read(call, stage, values, plan, reports, look)
            return dict(read.outputs), {**read.info, "face_cached": known}

        return remembered

    def digest(self, values: Values) -> bytes:
        """SHA-256 of a request's photograph, also of one that a handle stands for. Raises `IdentityExpired`."""
        if "identity" in values:
            return self._named(str(values["identity"])).photo
        return hashlib.sha256(values["image"]).digest()

    def name(self, image: bytes, plan: Plan) -> str:
        """A new handle of a face that was just read. It cannot be guessed."""
        handle = secrets.token_urlsafe(24)
        self._by_handle[handle] = self._by_content[_key(image, plan)]
        self._trim()
        return handle

    def forget(self, handle: str) -> None:
        """Forget a handle, and what was read of its photograph unless another handle stands for it. Idempotent."""
        read = self._by_handle.pop(handle, None)
        if read is None or any(other.photo == read.photo for other in self._by_handle.values()):
            return
        for key in [key for key, other in self._by_content.items() if other.photo == read.photo]:
            del self._by_content[key]

    def _read(
        self, call: Call, stage: Stage, values: Values, plan: Plan, reports: Mapping[str, Info], look: Progress
    ) -> tuple[_Read, bool]:
        self._trim()
        key = _key(values["image"], plan)
        if (read := self._by_content.get(key)) is not None:
            self._by_content.move_to_end(key)
            return read, True
        outputs, info = call(stage, values, plan, reports, look)
        read = _Read(*key, outputs, info, time.monotonic() + self._seconds)
        self._by_content[key] = read
        return read, False

    def _find(self, handle: str, plan: Plan) -> _Read:
        read = self._named(handle)
        if read.options != _options(plan):
            shown = dict(zip(("face_index", "keypoints"), read.options, strict=True))
            raise InvalidOption(f"the identity was read with {shown}; give the same options, or read it again")
        return read

    def _named(self, handle: str) -> _Read:
        self._trim()
        if handle not in self._by_handle:
            raise IdentityExpired("the identity is not known here, or no longer; send the photograph again")
        self._by_handle.move_to_end(handle)
        return self._by_handle[handle]

    def _trim(self) -> None:
        for kept in (self._by_content, self._by_handle):
            _shorten(kept, self._kept)


def _shorten(kept: OrderedDict[Any, _Read], most: int) -> None:
    """Forget what is too old, and the least recently used of too many."""
    now = time.monotonic()
    for key in [key for key, read in kept.items() if read.until < now]:
        del kept[key]
    while len(kept) > most:
        kept.popitem(last=False)


def _bytes(value: Any) -> int:
    """Of an array or a tensor."""
    return int(value.nbytes)


def _key(image: bytes, plan: Plan) -> tuple[bytes, _Options]:
    return hashlib.sha256(image).digest(), _options(plan)


def _options(plan: Plan) -> _Options:
    """All options that the face stage reads."""
    return plan.options.face_index, plan.options.keypoints
