"""A trial runs every network that its few frames need, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime.bundle import Bundle
from consisid_runtime.events import Event
from consisid_runtime.plan import Geometry
from consisid_runtime.stages import table
from consisid_runtime.stages.face.faces import Faces
from consisid_runtime.stages.flow import in_process
from consisid_runtime.stages.trial import trial_options
from consisid_runtime.stages.work import Work


def test_every_network_runs_and_nothing_is_kept(torch_bundle_of: Callable[..., Path]) -> None:
    bundle = Bundle.open(torch_bundle_of(), device="cpu")
    ran: set[str] = set()

    def counted(name: str, engine: Any) -> Any:
        def run(inputs: Mapping[str, Any]) -> Any:
            ran.add(name)
            return engine(inputs)

        return run

    load = bundle.module

    def module(name: str) -> Any:
        return counted(name, load(name))

    bundle.module = module  # type: ignore[method-assign]
    stages = table.load(bundle)
    work = Work(bundle, Faces())
    parts = work.trial(in_process(stages))
    events: list[Event] = []
    try:
        while True:
            events.append(next(parts))
    except StopIteration as end:
        reports = end.value
    assert [name for name in reports] == [stage.name for stage in table.STAGES]
    assert reports["denoise"]["computed_steps"] == 1 and reports["denoise"]["guided_steps"] == 0
    # Nine frames are one group of the decoder's, and no second one.
    assert ran >= bundle.manifest["modules"].keys() - {"vae_decoder_next"}
    assert not work.faces._by_content and not work.rates._seen


@pytest.mark.parametrize(("records", "frames"), [({"engine": "onnx"}, 9), ({"profiles": []}, None)])
def test_engines_that_are_built_for_one_size_get_it(records: dict[str, Any], frames: int | None) -> None:
    geometry = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=True)
    bundle: Any = SimpleNamespace(
        manifest={"modules": {"clip": {"engine": "torch"}, "dit_step": records}},
        config=SimpleNamespace(geometry=geometry),
    )
    assert trial_options(bundle).frames == frames
