"""What each object is called. Everything of a job is below its prefix, so that it can be deleted with it."""

from __future__ import annotations

import hashlib
import secrets

from consisid_gateway.jobs.job import character_prefix, checkpoints_of, prefix_of


def portrait_of(job: str) -> str:
    return f"{prefix_of(job)}portrait"


def checkpoint_of(job: str, epoch: int) -> str:
    """A new name with each call: what one owner writes never replaces what another, or itself, goes on from."""
    return f"{checkpoints_of(job)}{epoch}-{secrets.token_hex(8)}"


def result_of(job: str, content: bytes, suffix: str) -> str:
    """By digest: what two owners finish at once are the same bytes under the same name, or two names."""
    return f"{prefix_of(job)}{hashlib.sha256(content).hexdigest()}{suffix}"


def portrait_of_character(character: str) -> str:
    return f"{character_prefix(character)}portrait"
