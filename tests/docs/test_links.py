"""Every relative link in a page leads to a file, and every anchor to a heading."""

from __future__ import annotations

import re
from pathlib import Path

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_FENCE = re.compile(r"```.*?```", re.DOTALL)


def test_links_and_anchors_resolve(root: Path, pages: dict[str, str]) -> None:
    broken = []
    for name, text in pages.items():
        for link in _LINK.findall(_CODE.sub("", text)):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = ((root / name).parent / file).resolve() if file else root / name
            if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_an_anchor_is_that_of_github() -> None:
    page = "# A `B`: c\n```\n# not a heading\n```\n## A b c\n## fp8, bf16\n"
    assert anchors(page) == {"a-b-c", "a-b-c-1", "fp8-bf16"}


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", _FENCE.sub("", page), re.MULTILINE):
        anchor = slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = 0
        while anchor in found:
            count += 1
            anchor = f"{slug}-{count}"
        found.add(anchor)
    return found
