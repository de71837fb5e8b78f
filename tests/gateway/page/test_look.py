"""Keyboard, narrow screens, colours, and what assistive technology finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_hand import Hand
from page_steps import begin, choose, finished, write

expect: Any = pytest.importorskip("playwright.sync_api").expect
Axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

LONG = (
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverleihungszeremonie"
    "mitanschließenderblaskapellenbegleitung " * 6
)
CONTRASTS = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((each) => each / 255)
        .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
        .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const [r, g, b, a = 1] = numbers(getComputedStyle(node).backgroundColor);
            if (a === 1) return [r, g, b];
            if (a > 0) throw new Error('a ground that shines through is not computed');
        }
        return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        const shown = walker.currentNode.textContent.trim() && node.checkVisibility({ visibilityProperty: true });
        if (!shown || node.closest('.hidden, option, script, :disabled')) continue;
        const pair = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
        found.push([(pair[0] + 0.05) / (pair[1] + 0.05), walker.currentNode.textContent.trim()]);
    }
    return found;
}"""


def everything(page: Any, hand: Hand, portrait: Path) -> None:
    """A page with a face, a refusal, a failed video, one that is done and one that runs."""
    choose(page, hand, portrait, face_yaw=30.0, faces=2)
    write(page, LONG)
    hand.fail(begin(page, hand), "MEMORY_TOO_SMALL", "the video takes 31 GiB; 24 are free " + "x" * 200)
    expect(page.locator(".panel .notice")).to_be_visible()
    hand.finish(begin(page, hand))
    expect(page.locator("video")).to_be_visible()
    page.get_by_role("button", name="Compare with another seed").click()
    job = hand.begin()
    hand.step(job, 5, 20, 40.0)
    expect(page.locator(".left:visible")).to_have_text("about 40 s left")
    page.get_by_text("More options").click()
    page.get_by_role("button", name="Another prompt").click()
    write(page, " ")
    page.locator("#start").click()
    page.get_by_role("button", name="Delete “").last.click()


def test_by_keyboard_alone(page: Any, hand: Hand, portrait: Path) -> None:
    # Playwright catches file choosers from its first listener on, which a key may overtake.
    page.on("filechooser", lambda chooser: None)
    keys = page.keyboard
    keys.press("Tab")
    expect(page.get_by_text("Skip to the new video")).to_be_focused()
    keys.press("Enter")
    expect(page.locator("#portrait")).to_be_focused()
    assert page.locator("#drop").evaluate("(drop) => getComputedStyle(drop).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files(portrait)
    hand.read_face()
    expect(page.locator("#face-headline")).to_have_text("A good portrait")
    keys.press("Tab")
    expect(page.get_by_role("button", name="Remove")).to_be_focused()
    keys.press("Tab")
    expect(page.locator("#prompt")).to_be_focused()
    keys.type("A person reads")
    for _ in range(4):  # over the examples, to the tiers
        keys.press("Tab")
    keys.press("ArrowDown")
    expect(page.get_by_label("Exact")).to_be_checked()
    while page.evaluate("() => document.activeElement.id") != "start":
        keys.press("Tab")
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("() => document.activeElement.outerHTML")
    keys.press("Enter")
    job = hand.begin()
    expect(page.locator("#viewer-title")).to_be_focused()
    keys.press("Tab")
    expect(page.get_by_role("button", name="Cancel").first).to_be_focused()
    hand.finish(job)
    expect(page.locator("video")).to_be_visible()


def test_pasting_and_dropping(page: Any, hand: Hand, portrait: Path) -> None:
    for kind, field in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate(
            """async ([kind, field]) => {
                const canvas = new OffscreenCanvas(64, 64);
                canvas.getContext('2d').fillRect(0, 0, 9, 9);
                const given = new DataTransfer();
                given.items.add(new File([await canvas.convertToBlob()], `${kind}.png`, { type: 'image/png' }));
                const Kind = kind === 'paste' ? ClipboardEvent : DragEvent;
                document.body.dispatchEvent(new Kind(kind, { [field]: given, bubbles: true, cancelable: true }));
            }""",
            [kind, field],
        )
        hand.read_face()
        expect(page.locator("#portrait-name")).to_have_text(f"{kind}.png")
        expect(page.locator("#face-headline")).to_have_text("A good portrait")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(
    open_page: Callable[..., Any], hand: Hand, portrait: Path, width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 740})
    everything(page, hand, portrait)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    wide = "(width) => [...document.body.querySelectorAll('*')].filter((each) => !each.closest('.hidden, .skip')"
    wide += " && each.getBoundingClientRect().right > width + 0.5).map((each) => each.outerHTML.slice(0, 120))"
    assert page.evaluate(wide, width) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(open_page: Callable[..., Any], hand: Hand, portrait: Path, scheme: str) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    everything(page, hand, portrait)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 40
    assert [pair for pair in found if pair[0] < 4.5] == []
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 21)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe(open_page: Callable[..., Any], hand: Hand, portrait: Path, scheme: str) -> None:
    axe = Axe()
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    assert axe.run(page).response["violations"] == []
    everything(page, hand, portrait)
    found = axe.run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


def test_reduced_motion_does_not_start_by_itself(open_page: Callable[..., Any], hand: Hand, portrait: Path) -> None:
    page = open_page(reduced_motion="reduce")
    finished(page, hand, portrait)
    assert page.locator("video").evaluate("(video) => video.paused")


@pytest.mark.parametrize("prompt", ["Hm", LONG])
def test_a_card_is_filled_whatever_its_prompt(page: Any, hand: Hand, portrait: Path, prompt: str) -> None:
    choose(page, hand, portrait)
    write(page, prompt)
    hand.finish(begin(page, hand))
    expect(page.locator(".thumbnail img")).to_be_visible()
    width, height = page.locator(".thumbnail").evaluate("(node) => [node.clientWidth, node.clientHeight]")
    assert width == page.locator(".card").evaluate("(node) => node.clientWidth")
    assert height == pytest.approx(width * 2 / 3, abs=1)
