"""Nothing that a caller sends names a file: paths are refused, or are text like any other, and none is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.door.request import Asked, Tensor, check
from consisid_runtime.errors import ConsisIDError, ImageUnreadable, InvalidOption, NotFound
from consisid_runtime.options import Options
from consisid_runtime.stages.face.image import read_photo
from consisid_runtime.wire import Extras

PROMPT = Tensor("prompt", "BYTES", [1], [b"a man"])
TEXTS = {"prompt", "negative_prompt"}
NAMES = sorted({field.name for kind in (Options, Extras) for field in fields(kind)} - TEXTS)
FORMS = ("{}", "file://{}", "../../../../..{}", "./{}", "{}\0.png", "\\\\host\\share{}", "~{}", "|cat {}", "$(cat {})")

opened: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "os.system", "socket.connect"):
        opened.append(f"{event} {arguments!r}")


@pytest.fixture(scope="module", autouse=True)
def _watched() -> None:
    sys.addaudithook(_hook)  # for ever: hooks cannot be taken away


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "secret-of-the-machine"
    path.write_bytes(b"root")
    opened.clear()
    yield str(path)
    assert [line for line in opened if path.name in line] == []


def ask(model: str = "consisid_stream", image: bytes = b"abc", **parameters: Any) -> Asked:
    tensors = [Tensor("image", "UINT8", [len(image)], image), PROMPT]
    return check(model, tensors, parameters, [], "")


@pytest.mark.parametrize("form", FORMS)
def test_no_option_takes_a_path(secret: str, form: str) -> None:
    for name in (*NAMES, "consisid_ticket", "consisid_urgent", "consisid_packed", "bundle", "out", "image_path"):
        with pytest.raises(InvalidOption):
            ask(**{name: form.format(secret)})


@pytest.mark.parametrize("form", FORMS)
def test_no_model_is_found_by_a_path(secret: str, form: str) -> None:
    for model in (form.format(secret), f"consisid/{form.format(secret)}", f"{form.format(secret)}/consisid"):
        with pytest.raises(NotFound):
            ask(model)


@pytest.mark.parametrize("form", [form for form in FORMS if "\0" not in form])
def test_a_path_is_a_text_like_any_other(secret: str, form: str) -> None:
    text = form.format(secret)
    tensor = Tensor("prompt", "BYTES", [1], [text.encode()])
    asked = check("consisid", [Tensor("image", "UINT8", [3], b"abc"), tensor], {"negative_prompt": text}, [], text)
    message = asked.message("ticket", "id")
    assert asked.prompt == text and message.parameters["negative_prompt"].string_param == text
    assert message.id == "id", "the caller's own stays in the door"


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_its_bytes(secret: str, form: str) -> None:
    text = form.format(secret)
    assert ask(image=text.encode()).image == text.encode()
    svg = f'<svg xmlns:x="http://www.w3.org/1999/xlink"><image x:href="{text}"/></svg>'
    for image in (
        text,
        svg,
        f"%!PS\n({text}) run",
        f"#EXTM3U\n{text}",
        f"push graphic-context\nimage over 0,0 0,0 '{text}'",
    ):
        with pytest.raises(ImageUnreadable):
            read_photo(image.encode().ljust(200))


def test_the_fixture_sees_what_is_opened(secret: str) -> None:
    Path(secret).read_bytes()
    assert any("secret-of-the-machine" in line for line in opened)
    opened.clear()
    with pytest.raises(ConsisIDError):
        ask(tier=secret)
