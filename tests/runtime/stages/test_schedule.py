from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

from consisid_runtime.errors import CheckpointInvalid, InvalidOption
from consisid_runtime.stages.schedule import Schedule

TROUBLESHOOTING = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
RELEASED = {
    "_class_name": "CogVideoXDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}
SHAPE = (1, 2, 4, 3, 5)


def reference(config, solver, count, outputs, latents):
    """diffusers' trajectory: latents after each step."""
    kind = CogVideoXDPMScheduler if solver == "dpm" else CogVideoXDDIMScheduler
    scheduler = kind(**{key: value for key, value in config.items() if key != "_class_name"})
    scheduler.set_timesteps(count)
    generator, previous, trajectory = torch.Generator().manual_seed(1), None, []
    for i, timestep in enumerate(scheduler.timesteps):
        if solver == "dpm":
            back = scheduler.timesteps[i - 1] if i else None
            latents, previous = scheduler.step(
                outputs[i], previous, timestep, back, latents, generator=generator, return_dict=False
            )
        else:
            latents = scheduler.step(outputs[i], timestep, latents, return_dict=False)[0]
        trajectory.append(latents)
    return scheduler.timesteps, trajectory


def ours(schedule, outputs, latents):
    generator, previous, trajectory = torch.Generator().manual_seed(1), None, []
    for i, step in enumerate(schedule.steps):
        draws = [torch.randn(SHAPE, generator=generator) for _ in range(step.draws)]
        latents, previous = schedule.advance(i, outputs[i], latents, previous, draws[-1] if draws else None)
        trajectory.append(latents)
    return trajectory


@pytest.mark.parametrize("solver", ["dpm", "ddim"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"snr_shift_scale": 3.0, "rescale_betas_zero_snr": False, "set_alpha_to_one": False},
        {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
        {"prediction_type": "sample", "beta_schedule": "linear"},
        {"timestep_spacing": "leading"},
        {"timestep_spacing": "linspace"},
    ],
    ids=lambda changed: ",".join(changed) or "released",
)
def test_a_trajectory_is_the_reference_bit_for_bit(solver, count, changed):
    config = RELEASED | changed
    outputs = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    schedule = Schedule.from_config(config, solver, count)
    timesteps, expected = reference(config, solver, count, outputs, latents)
    assert torch.equal(schedule.timesteps, timesteps)
    for step, (got, want) in enumerate(zip(ours(schedule, outputs, latents), expected, strict=True)):
        assert torch.equal(got.nan_to_num(), want.nan_to_num()), step


@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_leading_timesteps_are_shifted_by_the_configured_offset(count, offset):
    config = RELEASED | {"timestep_spacing": "leading", "steps_offset": offset}
    scheduler = CogVideoXDPMScheduler(**{key: value for key, value in config.items() if key != "_class_name"})
    scheduler.set_timesteps(count)
    found = Schedule.from_config(config, "dpm", count).timesteps
    assert torch.equal(found, scheduler.timesteps) and found[-1] == offset


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_the_offset_is_for_leading_timesteps_only(spacing):
    config = RELEASED | {"timestep_spacing": spacing}
    shifted = Schedule.from_config(config | {"steps_offset": 3}, "dpm", 50)
    assert torch.equal(shifted.timesteps, Schedule.from_config(config, "dpm", 50).timesteps)


def test_missing_keys_take_the_reference_defaults():
    outputs, latents = torch.randn(4, *SHAPE), torch.randn(SHAPE)
    timesteps, expected = reference({}, "dpm", 4, outputs, latents)
    schedule = Schedule.from_config({}, "dpm", 4)
    assert torch.equal(schedule.timesteps, timesteps)
    assert torch.equal(ours(schedule, outputs, latents)[-1], expected[-1])


def test_the_released_schedule_ends_in_clean_finite_latents():
    outputs, latents = torch.randn(50, *SHAPE), torch.randn(SHAPE)
    schedule = Schedule.from_config(RELEASED, "dpm", 50)
    assert schedule.timesteps[[0, 1, -1]].tolist() == [999, 979, 19]
    final = ours(schedule, outputs, latents)[-1]
    assert final.isfinite().all()
    assert schedule.steps[-1].noise == 0


def test_counts_at_which_the_reference_steps_once_too_often():
    """`np.arange` overshoots at 62 counts; diffusers then ends at timestep −1, which is the pure-noise level again."""
    scheduler = CogVideoXDPMScheduler(**{key: value for key, value in RELEASED.items() if key != "_class_name"})
    longer = []
    for count in range(1, 1001):
        scheduler.set_timesteps(count)
        if len(scheduler.timesteps) != count:
            longer.append(count)
            assert scheduler.timesteps[-1] == -1
    assert len(longer) == 62
    for count in (61, 103, 419):
        scheduler.set_timesteps(count)
        assert torch.equal(Schedule.from_config(RELEASED, "dpm", count).timesteps, scheduler.timesteps[:-1])
    text = TROUBLESHOOTING.read_text()
    assert ", ".join(map(str, longer[:-1])) + f" and {longer[-1]}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "squaredcos_cap_v2"),
        ("trained_betas", [0.1, 0.2]),
        ("prediction_type", "flow"),
        ("timestep_spacing", "karras"),
        ("_class_name", "EulerDiscreteScheduler"),
    ],
)
def test_what_is_not_supported_is_named(key, value):
    with pytest.raises(CheckpointInvalid, match=key):
        Schedule.from_config(RELEASED | {key: value}, "dpm", 4)


@pytest.mark.parametrize(
    ("changed", "count"),
    [({"num_train_timesteps": 100}, 101), ({"timestep_spacing": "leading", "steps_offset": 1}, 1000)],
)
def test_more_steps_than_trained_with(changed, count):
    with pytest.raises(InvalidOption, match=f"got {count}"):
        Schedule.from_config(RELEASED | changed, "ddim", count)


def test_a_step_without_what_it_needs_is_refused():
    schedule = Schedule.from_config(RELEASED, "dpm", 4)
    tensor = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="x0 of the step before"):
        schedule.advance(1, tensor, tensor, None, tensor)
    with pytest.raises(ValueError, match="draw"):
        schedule.advance(0, tensor, tensor, None, None)
