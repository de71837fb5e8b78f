"""The official SDK, unmodified: whatever it sends is understood, whatever it reads is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

PAGE = Path(__file__).parents[3] / "docs" / "gateway.md"


@pytest.fixture
def sdk(gateway: Any) -> Iterator[openai.OpenAI]:
    gateway.tenant[0] = "sdk"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        yield client
    gateway.tenant[0] = "local"


def made(gateway: Any, sdk: openai.OpenAI, **more: Any) -> Any:
    return sdk.videos.create(prompt="a person waves", input_reference=("p.jpg", gateway.portrait), **more)


def test_create(gateway: Any, sdk: openai.OpenAI) -> None:
    video = made(gateway, sdk, model="consisid", size="72x48", seconds="4")
    assert (video.object, video.status, video.progress) == ("video", "queued", 0)
    assert (video.size, video.seconds, video.model, video.prompt) == ("72x48", "4", "consisid", "a person waves")
    assert video.error is None and video.completed_at is None and video.expires_at is None
    assert isinstance(video.created_at, int)


def test_options_as_extra_fields(gateway: Any, sdk: openai.OpenAI) -> None:
    more = {"steps": 7, "guidance": 1.5, "tier": "draft", "seed": 11, "dynamic_guidance": True, "face_index": "only"}
    assert made(gateway, sdk, extra_body=more).options == more  # extras of the answer are attributes


def test_retrieve(gateway: Any, sdk: openai.OpenAI) -> None:
    video = made(gateway, sdk)
    again = sdk.videos.retrieve(video.id)
    assert again.id == video.id and again.created_at == video.created_at


def test_create_and_poll(gateway: Any, sdk: openai.OpenAI) -> None:
    with gateway.worker():
        video = sdk.videos.create_and_poll(
            prompt="a person waves", input_reference=("p.jpg", gateway.portrait), poll_interval_ms=20
        )
    assert (video.status, video.progress, video.size, video.seconds) == ("completed", 100, "72x48", "1")
    assert video.expires_at - video.completed_at == 3600
    assert video.bundle == "ab12" and video.seed == 7 and video.warnings == ["the prompt was too long"]


def test_the_example_of_the_page(gateway: Any, sdk: openai.OpenAI, tmp_path: Path, monkeypatch: Any) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block.count("http://127.0.0.1:8080/") == 1
    (tmp_path / "portrait.png").write_bytes(gateway.portrait)
    monkeypatch.chdir(tmp_path)
    with gateway.worker():
        exec(compile(block.replace("http://127.0.0.1:8080/", f"{gateway.url}/"), PAGE.name, "exec"), {})
    assert (tmp_path / "video.mp4").read_bytes() == gateway.video


def test_the_sdk_polls_as_often_as_the_estimate_says(gateway: Any, sdk: openai.OpenAI) -> None:
    video = made(gateway, sdk)
    owner = gateway.claim(video.id)
    waits = {}
    for left in (0.01, 1.5, 600.0):
        gateway.steps(owner, 1, 1)
        with gateway.database.transaction() as connection:
            import sqlalchemy as sa

            from consisid_gateway.jobs.tables import jobs

            connection.execute(sa.update(jobs).where(jobs.c.id == video.id).values(seconds_left=left))
        waits[left] = sdk.videos.with_raw_response.retrieve(video.id).headers["openai-poll-after-ms"]
    assert waits == {0.01: "200", 1.5: "1500", 600.0: "5000"}


def test_a_failed_job_is_an_answer(gateway: Any, sdk: openai.OpenAI) -> None:
    with gateway.worker(refuse="NO_FACE"):
        video = sdk.videos.create_and_poll(
            prompt="a person waves", input_reference=("p.jpg", gateway.portrait), poll_interval_ms=20
        )
    assert video.status == "failed"
    assert video.error.code == "NO_FACE" and video.error.message == "no face was found"


def test_a_list_goes_on_by_itself(gateway: Any, sdk: openai.OpenAI) -> None:
    gateway.tenant[0] = "lists"
    ids = [made(gateway, sdk).id for _ in range(5)]
    assert [video.id for video in sdk.videos.list(limit=2)] == ids[::-1]
    assert [video.id for video in sdk.videos.list(limit=2, order="asc", after=ids[1])] == ids[2:]
    page = sdk.videos.list(limit=2)
    assert (page.has_more, page.last_id, page.first_id) == (True, ids[3], ids[4])


def test_delete(gateway: Any, sdk: openai.OpenAI) -> None:
    video = made(gateway, sdk)
    gone = sdk.videos.delete(video.id)
    assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        sdk.videos.retrieve(video.id)


@pytest.mark.parametrize("variant", ["video", "thumbnail", "spritesheet", None])
def test_download(gateway: Any, sdk: openai.OpenAI, variant: Any, tmp_path: Any) -> None:
    video = made(gateway, sdk)
    gateway.finish(video.id)
    content = sdk.videos.download_content(video.id, **({"variant": variant} if variant else {}))
    content.write_to_file(tmp_path / "file")
    expected = {"thumbnail": gateway.portrait, "spritesheet": gateway.portrait + b"sheet"}.get(variant, gateway.video)
    assert (tmp_path / "file").read_bytes() == expected


def test_download_in_pieces(gateway: Any, sdk: openai.OpenAI) -> None:
    video = made(gateway, sdk)
    gateway.finish(video.id)
    with sdk.videos.with_streaming_response.download_content(video.id) as answer:
        assert b"".join(answer.iter_bytes(1000)) == gateway.video


def test_remix(gateway: Any, sdk: openai.OpenAI) -> None:
    video = made(gateway, sdk, extra_body={"seed": 5, "steps": 3, "priority": "urgent"})
    other = sdk.videos.remix(video.id, prompt="a person sings")
    assert other.remixed_from_video_id == video.id and other.prompt == "a person sings"
    assert other.options == {"seed": 5, "steps": 3} and other.id != video.id
    changed = sdk.videos.remix(video.id, prompt="a person sings", extra_body={"steps": 9})
    assert changed.options == {"seed": 5, "steps": 9}


def test_characters(gateway: Any, sdk: openai.OpenAI) -> None:
    with gateway.worker():
        character = sdk.videos.create_character(name="Ada", video=("p.jpg", gateway.portrait))
        assert character.name == "Ada" and character.status == "ready" and character.face["box"] == [8, 8, 90, 100]
        again = sdk.videos.get_character(character.id)
        assert (again.id, again.name, again.created_at) == (character.id, "Ada", character.created_at)
        video = sdk.videos.create_and_poll(
            prompt="a person waves", extra_body={"character": character.id}, poll_interval_ms=20
        )
    assert video.status == "completed" and video.character == character.id


def test_errors_have_our_code(gateway: Any, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        made(gateway, sdk, extra_body={"num_inference_steps": 4})
    error = refused.value
    assert (error.code, error.param, error.type) == ("INVALID_OPTION", "num_inference_steps", "invalid_request_error")
    assert "'steps'" in error.body["message"] and error.body["remedy"]
    with pytest.raises(openai.ConflictError) as early:
        sdk.videos.download_content(made(gateway, sdk).id)
    assert early.value.code == "VIDEO_NOT_READY"
