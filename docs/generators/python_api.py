"""The reference of the Python API, from signatures and docstrings, by griffe2md."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from griffe import GriffeLoader, Parser
from griffe2md import ConfigDict, render_object_docs

MEMBERS: dict[str, list[str] | None] = {
    "pipeline.Pipeline": ["open", "generate", "estimate"],
    "client.client.Client": None,
    "client.async_client.AsyncClient": None,
    "client.stream.Stream": ["video", "cancel"],
    "client.stream.AsyncStream": ["video", "cancel"],
    "events.Event": [],
    "stages.estimate.Estimate": [],
    "options.Options": ["from_mapping", "to_mapping"],
    "video.Video": ["mp4", "frames", "signed", "save"],
    "provenance.credentials.Signer": ["read"],
    "errors.ConsisIDError": ["wire"],
}
"""Class → the members to show; None shows all public ones."""

_CONFIG: ConfigDict = {
    "docstring_section_style": "list",
    "filters": ["!^_"],
    "heading_level": 3,
    "line_length": 100,
    "members_order": "source",
    "separate_signature": True,
    "show_bases": False,
    "show_object_full_path": False,
    "show_root_full_path": False,
    "show_root_heading": True,
    "show_root_members_full_path": False,
    "show_signature_annotations": True,
    "signature_crossrefs": False,
    "summary": False,
}
_REFERENCE = re.compile(r"\[([^\[\]]*)\]\(#[^)]*\)")


def python_api() -> str:
    """Markdown: signature, docstring and members of each public class."""
    return "\n\n".join(_render(_class(name), members) for name, members in MEMBERS.items())


def _class(name: str) -> Any:
    module, _, kind = name.rpartition(".")
    spec = find_spec(f"consisid_runtime.{module}")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin)
    # As a module of its own: loading the package would read all of its files.
    loader = GriffeLoader(search_paths=[path.parent], docstring_parser=Parser.google)
    return loader.load(path.stem)[kind]


def _render(found: Any, members: list[str] | None) -> str:
    text: str = render_object_docs(found, {**_CONFIG, "members": members})
    # Cross-references point to anchors that plain Markdown does not have.
    while (plain := _REFERENCE.sub(r"\1", text)) != text:
        text = plain
    return text.strip()
