"""What a request should take, as it is sent and as a pipeline tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

import consisid_nano
from consisid_export.checkpoint import example
from consisid_runtime import Options, Pipeline
from consisid_runtime.errors import InvalidOption, ServerError
from consisid_runtime.stages.estimate import Estimate

FOUND = Estimate.of({"denoise": 2.0, "decode": 0.5}, 10, None, position=3, seconds_queued=None)


def test_what_is_sent_comes_back() -> None:
    assert FOUND.seconds == 2.5 and FOUND.sources == {"seconds": "measured", "host_bytes": "measured"}
    for each in (FOUND, Estimate.of(None, None, 0), Estimate.of({}, None, 7, position=None)):
        assert Estimate.from_json(json.loads(json.dumps(each.to_json() | {"later": 1}))) == each


@pytest.mark.parametrize(
    "changed",
    [
        {"seconds": "2"},
        {"seconds": -1},
        {"seconds": True},
        {"position": 1.5},
        {"host_bytes": 0.5},
        {"stages": {"denoise": "2"}},
        {"stages": None},
        {"sources": {"seconds": 1}},
        {"sources": []},
    ],
    ids=str,
)
def test_what_is_no_estimate_is_the_servers_fault(changed: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="an estimate that is none"):
        Estimate.from_json(FOUND.to_json() | changed)
    with pytest.raises(ServerError, match="an estimate that is none"):
        Estimate.from_json({"seconds": 1})


def test_a_pipeline_tells_what_it_has_measured(trained_bundle_of: Any) -> None:
    shown = example.read(consisid_nano.checkpoint())
    pipeline = Pipeline.open(trained_bundle_of("mixed"), device="cpu")
    nothing = pipeline.estimate()
    assert (nothing.seconds, nothing.host_bytes, nothing.device_bytes) == (None, None, 0)
    assert nothing.sources == {"device_bytes": "counted"} and (nothing.position, nothing.seconds_queued) == (0, 0)
    with pytest.raises(InvalidOption, match="8k"):
        pipeline.estimate(Options(frames=10))
    video = pipeline.generate(shown.portrait, shown.calibration[0][0], Options(steps=2, frames=9))
    found = pipeline.estimate(Options(steps=4, frames=9))
    took = video.info["seconds"]
    assert found.stages.keys() == took.keys()
    assert found.stages["denoise"] == pytest.approx(2 * took["denoise"], rel=0.01)
    assert found.stages["decode"] == pytest.approx(took["decode"], abs=1e-3)
    assert found.host_bytes is not None and found.host_bytes > 2**27
    assert found.sources["seconds"] == found.sources["host_bytes"] == "measured"
