"""`consisid inspect VIDEO.mp4`: what a video says of its origin."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from consisid_runtime.errors import FileInaccessible, MissingExtra
from consisid_runtime.files.small_file import read_small
from consisid_runtime.mp4 import read_tags
from consisid_runtime.provenance.credentials import check
from consisid_runtime.provenance.marks import SOURCE_TYPE, facts_of


def origin(path: Path, trust: Path | None = None) -> dict[str, Any]:
    """Its marks, and its content credentials: None where it has none, the text "unchecked" where c2pa is missing.

    Raises `FileInaccessible` for what cannot be read as a video, `InvalidOption` for no certificates in `trust`.
    """
    anchors = None if trust is None else read_small(trust)
    try:
        mp4 = path.read_bytes()
        tags = read_tags(mp4)
    except (OSError, ValueError) as error:
        raise FileInaccessible(f"{path} cannot be read as a video: {error}") from error
    try:
        found = check(mp4, anchors)
        credentials: Any = found and asdict(found)
    except MissingExtra:
        credentials = "unchecked"
    return {
        "video": str(path),
        "marks": facts_of(tags),
        "comment": tags.get("comment"),
        "ai_generated_in_xmp": SOURCE_TYPE in tags.get("xmp", ""),
        "credentials": credentials,
    }


def origin_table(found: dict[str, Any]) -> str:
    """The result of `origin` as text."""
    marks, credentials = found["marks"], found["credentials"]
    lines = [f"{found['video']}: {found['comment'] or 'no comment on its origin'}"]
    if marks is not None:
        shown = {k: v for k, v in marks.items() if k not in ("ai_generated", "options")} | marks.get("options", {})
        lines += [f"  {name:18}{value}" for name, value in shown.items()]
    lines.append(f"XMP: {'made by a trained model' if found['ai_generated_in_xmp'] else 'says nothing of a model'}")
    if credentials is None:
        lines.append("content credentials: none, so that nothing proves the above")
    elif credentials == "unchecked":
        lines.append("content credentials: not looked for; pip install 'consisid-runtime[provenance]'")
    else:
        lines.append(
            f"content credentials: {credentials['state']}, signed by {credentials['signer'] or 'nobody known'}"
        )
        lines += [f"  {name}" for name in (credentials["generator"], *credentials["source_types"]) if name]
        lines += [f"  problem: {problem}" for problem in credentials["problems"]]
    return "\n".join(lines)
