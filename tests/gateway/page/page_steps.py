"""What most tests do on the page, in the words of somebody who looks at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_hand import Hand

from consisid_gateway.jobs.running import Owner

expect: Any = pytest.importorskip("playwright.sync_api").expect
PROMPT = "A person <b>walks</b> & smiles"


def choose(page: Any, hand: Hand, portrait: Path, **figures: Any) -> None:
    page.set_input_files("#portrait", portrait)
    hand.read_face(**figures)
    expect(page.locator("#face-headline")).not_to_have_text("Looking for the face…")


def write(page: Any, prompt: str = PROMPT) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)


def begin(page: Any, hand: Hand) -> Owner:
    page.locator("#start").click()
    return hand.begin()


def finished(page: Any, hand: Hand, portrait: Path) -> None:
    choose(page, hand, portrait)
    write(page)
    hand.finish(begin(page, hand))
    expect(page.get_by_text("Download")).to_be_visible()
