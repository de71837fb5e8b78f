"""What goes wrong: refusals, failures, a gateway that is away, a page that is loaded again, a key that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_gateway import Gateway
from page_hand import Hand
from page_steps import PROMPT, begin, choose, finished, write

from consisid_gateway.access import keys

expect: Any = pytest.importorskip("playwright.sync_api").expect


def test_what_is_missing_is_named_and_focused(page: Any, hand: Hand, portrait: Path) -> None:
    write(page)
    page.locator("#start").click()
    expect(page.locator("#composer-problem")).to_have_text("Choose a portrait first.")
    expect(page.locator("#composer-problem")).to_be_in_viewport()
    expect(page.locator("#portrait")).to_be_focused()
    choose(page, hand, portrait)
    write(page, "  ")
    page.locator("#start").click()
    expect(page.locator("#composer-problem")).to_contain_text("Write a prompt")
    expect(page.locator("#prompt")).to_be_focused()
    write(page)
    page.get_by_text("More options").click()
    page.get_by_label("Guidance").fill("1000")
    page.get_by_text("More options").click()
    page.locator("#start").click()
    expect(page.locator("#composer-problem")).to_contain_text("Guidance")
    expect(page.get_by_label("Guidance")).to_be_focused()


def test_no_face(open_page: Callable[..., Any], hand: Hand, portrait: Path) -> None:
    page = open_page(expected=("400",))
    page.set_input_files("#portrait", portrait)
    hand.refuse_face("NO_FACE", "no face was found in the image")
    problem = page.locator("#portrait-problem")
    expect(problem).to_contain_text("no face was found")
    expect(problem).to_contain_text("Send a portrait in which one face is clearly visible")
    write(page)
    page.locator("#start").click()
    expect(page.locator("#composer-problem")).to_contain_text("Choose another portrait")
    choose(page, hand, portrait)
    expect(problem).to_be_empty()


def test_a_file_that_is_no_picture(page: Any, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("x")
    page.set_input_files("#portrait", text)
    expect(page.locator("#portrait-problem")).to_contain_text("notes.txt is no picture")


def test_a_refusal_keeps_what_was_typed(open_page: Callable[..., Any], hand: Hand, portrait: Path) -> None:
    page = open_page(expected=("400",))
    choose(page, hand, portrait)
    write(page)
    page.get_by_text("More options").click()
    page.locator("#frames").evaluate("(field) => { field.removeAttribute('min'); field.step = 'any'; }")
    page.get_by_label("Frames", exact=True).fill("0")
    page.locator("#start").click()
    problem = page.locator("#composer-problem")
    expect(problem).to_contain_text("INVALID_OPTION")
    expect(problem).to_contain_text("Correct the value")
    expect(page.get_by_label("Frames", exact=True)).to_be_focused()
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    page.get_by_label("Frames", exact=True).fill("17")
    begin(page, hand)


def test_a_failed_video_says_why(page: Any, hand: Hand, portrait: Path) -> None:
    choose(page, hand, portrait)
    write(page)
    hand.fail(begin(page, hand), "MEMORY_TOO_SMALL", "the video takes 31 GiB; 24 are free")
    expect(page.locator(".panel .notice")).to_contain_text("the video takes 31 GiB")
    expect(page.locator(".panel .notice")).to_contain_text("MEMORY_TOO_SMALL")
    expect(page.locator(".card .when")).to_contain_text("Failed")
    page.get_by_role("button", name="Try again").click()
    hand.begin()


def test_a_gateway_that_goes_away_and_comes_back(
    open_page: Callable[..., Any], gateway: Gateway, hand: Hand, portrait: Path
) -> None:
    page = open_page(expected=("ERR_", "Failed to load"))
    choose(page, hand, portrait)
    write(page)
    job = begin(page, hand)
    hand.step(job, 5, 20)
    expect(page.locator(".line")).to_contain_text("step 5")
    gateway.stop()
    expect(page.locator("#away")).to_contain_text("does not answer")
    write(page, "typed meanwhile")
    page.locator("#start").click()
    expect(page.locator("#composer-problem")).to_contain_text("Nothing you entered is lost")
    hand.step(job, 9, 20)
    gateway.start()
    expect(page.locator(".line")).to_contain_text("step 9", timeout=15000)
    expect(page.locator("#away")).to_be_hidden()
    hand.finish(job)
    expect(page.locator("video")).to_be_visible()
    page.locator("#composer-problem").get_by_role("button", name="Try again").click()
    hand.begin()


def keys_of(page: Any, path: str, *buttons: Any) -> list[str]:
    """The idempotency keys of the requests that these buttons send, none of which is answered."""
    page.route(path, lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    keys = []
    for button in buttons:
        with page.expect_request(lambda request: request.method == "POST") as sent:
            button.click()
        keys.append(sent.value.headers["idempotency-key"])
        expect(page.get_by_text("Nothing you entered is lost")).to_be_visible()
    return keys


def test_other_settings_are_another_request(open_page: Callable[..., Any], hand: Hand, portrait: Path) -> None:
    """The first request may have been carried out: with its key, another one would be refused for ever."""
    page = open_page(expected=("ERR_", "Failed to load"))
    finished(page, hand, portrait)
    write(page, "another one")
    start = page.locator("#start")
    first, again = keys_of(page, "**/v1/videos", start, start)
    page.get_by_role("button", name="Use these settings").click()
    [used] = keys_of(page, "**/v1/videos", start)
    page.get_by_text("More options").click()
    page.get_by_role("button", name="Back to the defaults").click()
    [defaults] = keys_of(page, "**/v1/videos", start)
    assert first == again and len({first, used, defaults}) == 3


def test_another_remix_is_another_request(open_page: Callable[..., Any], hand: Hand, portrait: Path) -> None:
    page = open_page(expected=("ERR_", "Failed to load"))
    finished(page, hand, portrait)
    seed = page.get_by_role("button", name="Compare with another seed")
    again = page.locator(".panel .notice").get_by_role("button", name="Try again")
    keys = keys_of(page, "**/remix", seed, again, seed)
    assert keys[0] == keys[1] != keys[2]


def test_a_reload_loses_nothing(page: Any, hand: Hand, portrait: Path) -> None:
    choose(page, hand, portrait)
    write(page)
    page.get_by_label("Steps", exact=True).fill("20")
    job = begin(page, hand)
    hand.step(job, 5, 20)
    write(page, "the next one")
    page.reload()
    expect(page.locator(".line")).to_contain_text("step 5 of 20")
    expect(page.locator("#prompt")).to_have_value("the next one")
    expect(page.locator("#steps")).to_have_value("20")
    expect(page.locator("#face-headline")).to_have_text("A good portrait")
    expect(page.locator("#face-box")).to_be_visible()
    hand.finish(job)
    expect(page.locator("video")).to_be_visible()
    hand.finish(begin(page, hand))


def test_another_tab_finds_the_running_video(open_page: Callable[..., Any], hand: Hand, portrait: Path) -> None:
    first = open_page()
    choose(first, hand, portrait)
    write(first)
    job = begin(first, hand)
    hand.step(job, 5, 20)
    expect(open_page().locator(".line")).to_contain_text("step 5 of 20")


def test_the_key_is_asked_for_and_goes_with_everything(
    open_page: Callable[..., Any], gateway: Gateway, hand: Hand, portrait: Path
) -> None:
    with gateway.parts.database.transaction() as connection:
        key, _ = keys.make(connection, "somebody")
    page = open_page(expected=("401",))
    expect(page.get_by_role("dialog")).to_contain_text("asks for an API key")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("does not know this key")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    choose(page, hand, portrait)
    write(page)
    job = begin(page, hand)
    hand.step(job, 5, 20)
    expect(page.locator(".line")).to_contain_text("step 5")
    hand.finish(job)
    expect(page.locator("video")).to_be_visible()
    expect(page.locator(".card img")).to_be_visible()
    assert page.evaluate("() => sessionStorage.getItem('consisid-key')") == key
    assert page.evaluate("() => localStorage.length") == 0
    page.reload()
    expect(page.locator("video")).to_be_visible()
