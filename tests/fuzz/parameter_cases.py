"""A request's parameters, as JSON text of anything."""

from __future__ import annotations

from random import Random

from json_changes import encoded, text, value, with_changes

from consisid_runtime.options import check_prompt
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.wire import parse_parameters, read_options, write_parameters

VALID = {
    "negative_prompt": "blurred",
    "seed": 7,
    "tier": "exact",
    "steps": 2,
    "guidance": 6.5,
    "dynamic_guidance": True,
    "frames": 9,
    "height": 64,
    "width": 64,
    "fps": 8,
    "scheduler": "ddim",
    "face_index": "only",
    "face_scale": 0.5,
    "global_identity": False,
    "local_identity": False,
    "keypoints": "source",
    "raw_frames": True,
    "similarity": True,
    "previews": True,
    "checkpoint_seconds": 0.5,
    "priority": 1,
    "timeout": 5_000_000,
    "binary_data_output": True,
    "triton_final_response": True,
}
_NEAR = ["Steps", "stepz", "num_frames", "cfg_scale", "consisid_ticket", "consisid_urgent", "consisid_packed", "a" * 70]
_GEOMETRY = Geometry(frames=17, height=128, width=192, spatial=8, temporal=4, patch=2, fixed_size=False)


def parameters(chance: Random) -> object:
    """An object of some options, changed; or, rarely, any value."""
    if chance.random() < 0.03:
        return value(chance)
    chosen = {name: VALID[name] for name in chance.sample(sorted(VALID), chance.randrange(6))}
    for _ in range(chance.randrange(3)):
        chosen[chance.choice([*VALID, *_NEAR])] = value(chance)
    return with_changes(chance, chosen, most=1)


def make(chance: Random) -> tuple[str, str]:
    """Parameters' text, and a prompt."""
    return encoded(chance, parameters(chance)).decode(errors="replace"), text(chance)


def run(case: tuple[str, str]) -> None:
    options, extras = read_options(parse_parameters(case[0]))
    check_prompt(case[1])
    plan(options, _GEOMETRY)
    written = write_parameters(options, extras)
    assert read_options(written) == (options, extras), "what was read is not what is written"
