"""From a portrait to videos, as somebody does it who sees the page for the first time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_steps import PROMPT, begin, choose, finished, write

from consisid_runtime.events import Event

expect: Any = pytest.importorskip("playwright.sync_api").expect


def test_from_a_portrait_to_a_video(page: Any, hand: Any, portrait: Path) -> None:
    choose(page, hand, portrait)
    expect(page.locator("#face-headline")).to_have_text("A good portrait")
    frame = page.locator("#face-box").bounding_box()
    photo = page.locator("#photo-image").bounding_box()
    shares = [(frame["x"] - photo["x"]) / photo["width"], (frame["y"] - photo["y"]) / photo["height"]]
    assert shares == pytest.approx([0.3, 0.18], abs=0.01)
    assert frame["width"] / photo["width"] == pytest.approx(0.4, abs=0.02)

    write(page)
    expect(page.locator("#prompt-count")).to_contain_text("5 words")
    page.get_by_label("Steps", exact=True).fill("20")
    page.get_by_text("Random seed each time").click()
    page.get_by_label("Seed", exact=True).fill("7")
    page.locator("#start").click()
    expect(page.locator(".line")).to_have_text("Next in line")
    job = hand.begin()
    hand.step(job, 5, 20, 40.2)
    expect(page.locator(".line")).to_have_text("Making the video: step 5 of 20")
    expect(page.locator(".left")).to_have_text("about 40 s left")
    expect(page.locator(".screen img")).to_have_attribute("src", re.compile("^data:image/jpeg;base64,"))
    assert page.locator("progress").evaluate("(bar) => bar.value") == 27
    assert "step 5 of 20" in page.locator("#announcer").text_content()
    hand.tell(job, Event("decode", 0, 1))
    expect(page.locator(".line")).to_have_text("Developing the frames")
    hand.finish(job)

    video = page.locator("video")
    expect(video).to_be_visible()
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.1")
    assert video.evaluate("(video) => [video.loop, video.muted, video.videoWidth]") == [True, True, 96]
    page.get_by_label("Loop").uncheck()
    assert video.evaluate("(video) => video.loop") is False
    with page.expect_download() as download:
        page.get_by_text("Download").click()
    assert download.value.suggested_filename == "consisid-7.mp4"
    assert b"ftyp" in Path(download.value.path()).read_bytes()[:16]
    expect(page.locator(".panel > .prompt")).to_have_text(PROMPT)
    expect(page.locator(".card .prompt")).to_have_text(PROMPT)
    expect(page.locator(".card img")).to_be_visible()
    assert page.locator("b").count() == 0


def test_the_queue_and_its_place(page: Any, hand: Any, portrait: Path) -> None:
    choose(page, hand, portrait)
    write(page)
    page.get_by_text("Compare two seeds").click()
    page.locator("#start").click()
    lines = page.locator(".line")
    expect(lines).to_have_text(["Next in line", "Waiting behind 1 video"])
    hand.begin()
    expect(lines).to_have_text(["Starting", "Next in line"])


def test_cancel_frees_the_device(page: Any, hand: Any, portrait: Path) -> None:
    choose(page, hand, portrait)
    write(page)
    job = begin(page, hand)
    hand.step(job, 3, 50)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("This video was cancelled.")).to_be_visible()
    assert hand.cancelled(job)
    expect(page.locator(".card .when")).to_contain_text("Cancelled")
    # Its portrait is deleted: what would make a video of it again is not offered.
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.get_by_role("button", name="Another prompt")).to_have_count(0)
    page.get_by_role("button", name="Use these settings").click()
    hand.finish(begin(page, hand))
    expect(page.locator("video")).to_be_visible()


def test_two_seeds_play_as_one(page: Any, hand: Any, portrait: Path) -> None:
    choose(page, hand, portrait)
    write(page)
    page.get_by_text("Random seed each time").click()
    page.get_by_text("Compare two seeds").click()
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_label("Second seed").fill("12345")
    expect(page.locator("#start")).to_have_text("Make both videos")
    page.locator("#start").click()
    for _ in range(2):
        hand.finish(hand.begin())
    expect(page.locator("video")).to_have_count(2)
    expect(page.locator(".facts dd").filter(has_text=re.compile("^(7|12345)$"))).to_have_count(2)
    page.get_by_role("button", name="Play both").click()
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.3")
    apart = (
        "() => { const [a, b] = document.querySelectorAll('video'); return Math.abs(a.currentTime - b.currentTime); }"
    )
    assert page.evaluate(apart) < 0.15
    page.get_by_role("button", name="Pause both").click()
    page.get_by_label("Time in both videos").fill("1")
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((each) => each.currentTime === 1)")


def test_history_remix_compare_and_delete(page: Any, hand: Any, portrait: Path) -> None:
    finished(page, hand, portrait)
    page.get_by_role("button", name="Another prompt").click()
    field = page.get_by_label("with another prompt")
    expect(field).to_be_focused()
    field.fill("Somebody else's words")
    page.get_by_role("button", name="Make it").click()
    hand.finish(hand.begin())
    expect(page.locator(".panel > .prompt")).to_have_text("Somebody else's words")
    cards = page.locator(".card")
    expect(cards).to_have_count(2)
    expect(cards.first).to_contain_text("Somebody else's words")

    page.get_by_role("button", name="Compare “A person").click()
    expect(page.locator("video")).to_have_count(2)
    page.get_by_role("button", name="Delete “Somebody").click()
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Escape")
    expect(cards).to_have_count(2)
    page.get_by_role("button", name="Delete “Somebody").click()
    page.locator(".sure .danger").click()
    expect(cards).to_have_count(1)
    expect(page.locator("video")).to_have_count(1)
    expect(cards.locator(".open")).to_be_focused()


def test_older_videos_come_a_page_at_a_time(page: Any, hand: Any, portrait: Path) -> None:
    finished(page, hand, portrait)
    for number in range(13):
        page.evaluate(
            """async (number) => {
                const api = await import(new URL('page/gateway/api.js', document.baseURI));
                const [first] = (await api.list(null, 1)).data;
                await api.remix(first.id, { prompt: `video ${number}` }, api.idempotencyKey());
            }""",
            number,
        )
    page.reload()
    expect(page.locator(".card")).to_have_count(12)
    page.get_by_role("button", name="Show older ones").click()
    expect(page.locator(".card")).to_have_count(14)
    expect(page.locator(".card .prompt").last).to_have_text(PROMPT)
    expect(page.get_by_role("button", name="Show older ones")).to_be_hidden()


def test_use_these_settings(page: Any, hand: Any, portrait: Path) -> None:
    finished(page, hand, portrait)
    write(page, "something else")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#steps")).to_have_value("20")
    assert page.locator("#seed").input_value().isdigit()
    expect(page.get_by_label("Random seed each time")).not_to_be_checked()


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"face_pixels": 48.0}, "too small: 48 pixels"),
        ({"face_sharpness": 12.0}, "blurred"),
        ({"face_yaw": -55.0}, "turned away"),
        ({"face_hidden": ["nose", "mouth"]}, "The nose and mouth are hidden"),
        ({"faces": 3}, "3 faces were found; the largest is taken"),
    ],
)
def test_quality_in_words(page: Any, hand: Any, portrait: Path, figures: dict[str, Any], words: str) -> None:
    choose(page, hand, portrait, **figures)
    expect(page.locator("#face-remarks")).to_contain_text(words)


def test_another_of_several_faces(page: Any, hand: Any, portrait: Path, open_page: Callable[..., Any]) -> None:
    choose(page, hand, portrait, faces=2)
    page.locator("#face-index").select_option("the second largest")
    expect(page.locator("#face-box")).to_be_hidden()
    write(page)
    with page.expect_request("**/v1/videos") as sent:
        page.locator("#start").click()
    assert re.search(rb'name="face_index"\r\n\r\n1\r\n', sent.value.post_data_buffer)
