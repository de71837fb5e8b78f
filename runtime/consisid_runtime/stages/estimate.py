"""What a request should take, before anybody sends it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consisid_runtime.errors import ServerError

MEASURED, COUNTED = "measured", "counted"

_WHOLE = ("position", "host_bytes", "device_bytes")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request with these options should take. A figure is None while nothing is known of it.

    Attributes:
        seconds: of work, from the request's turn to its video; of a photograph that was not read before.
        stages: seconds of each stage that is known.
        position: requests that run before one that is sent now.
        seconds_queued: until the turn of one that is sent now.
        host_bytes: peak memory of the host: of this process, or of all processes of the server added up, in which
            libraries that several share count for each.
        device_bytes: peak memory of the GPU; 0 without one.
        sources: where `seconds`, `host_bytes` and `device_bytes` come from: "measured" on the requests that this server
            or pipeline has finished, scaled from the most similar one; "counted" of the networks before any ran.
    """

    seconds: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    position: int | None = 0
    seconds_queued: float | None = 0.0
    host_bytes: int | None = None
    device_bytes: int | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        stages: Mapping[str, float] | None,
        host_bytes: int | None,
        device_bytes: int | None,
        *,
        position: int | None = 0,
        seconds_queued: float | None = 0.0,
    ) -> Estimate:
        """From the measured seconds of the stages, None before any, the measured and the counted memory."""
        found = {
            "seconds": (None if stages is None else sum(stages.values()), MEASURED),
            "host_bytes": (host_bytes, MEASURED),
            "device_bytes": (device_bytes, COUNTED),
        }
        return cls(
            seconds=found["seconds"][0],
            stages=stages or {},
            position=position,
            seconds_queued=seconds_queued,
            host_bytes=host_bytes,
            device_bytes=device_bytes,
            sources={name: source for name, (figure, source) in found.items() if figure is not None},
        )

    def to_json(self) -> dict[str, Any]:
        """As it is sent and printed; seconds to a tenth of a millisecond."""
        return {
            "seconds": _rounded(self.seconds),
            "stages": {name: _rounded(seconds) for name, seconds in self.stages.items()},
            "position": self.position,
            "seconds_queued": _rounded(self.seconds_queued),
            "host_bytes": self.host_bytes,
            "device_bytes": self.device_bytes,
            "sources": dict(self.sources),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Estimate:
        """The inverse of `to_json`. Raises `ServerError` for anything else; unknown fields are passed over."""
        try:
            given = {name: content[name] for name in cls.__slots__}
            fits = all(_is_figure(given[name], whole=name in _WHOLE) for name in given.keys() - {"stages", "sources"})
            fits = fits and all(_is_figure(seconds, whole=False) for seconds in given["stages"].values())
            fits = fits and all(isinstance(source, str) for source in given["sources"].values())
        except (KeyError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise ServerError(f"the server answered with an estimate that is none: {json.dumps(dict(content))[:200]}")
        return cls(**given)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _is_figure(value: object, *, whole: bool) -> bool:
    if value is None:
        return True
    kinds = int if whole else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
