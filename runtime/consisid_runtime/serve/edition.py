"""What a Triton server serves. A server that is started again may serve another edition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_runtime.options import Options
from consisid_runtime.plan import Plan

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Edition:
    """One of a server's.

    Attributes:
        repository: the model repository; or its files, path inside it → content, written anew at each start. None
            until the layout has been chosen, for which the device must be free.
        environment: variables that the models need.
        folders: variables that name a folder that the models read.
        bundle: whose files were verified; None where no bundle is known.
        layout: of the repository, one of `repository.LAYOUTS`; None where there is no bundle, or none is chosen yet.
    """

    repository: Path | Mapping[str, str] | None
    environment: dict[str, str]
    folders: Mapping[str, Path]
    bundle: Bundle | None = None
    layout: str | None = None

    @property
    def fingerprint(self) -> str:
        """The bundle's; empty without one."""
        return "" if self.bundle is None else self.bundle.fingerprint

    @property
    def plan(self) -> Callable[[Options], Plan] | None:
        """Resolves a request's options as the models do; None without a bundle."""
        return None if self.bundle is None else self.bundle.plan

    def is_same(self, other: Edition) -> bool:
        """Whether the other one is the same bundle in the same folder."""
        return (self.fingerprint, self.folders) == (other.fingerprint, other.folders)
