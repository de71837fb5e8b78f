"""A plan fits what it was made for, moves no more than it must, and is refused with the setting that would do."""

from dataclasses import replace
from itertools import pairwise

import pytest

from consisid_runtime.errors import InvalidOption, MemoryTooSmall
from consisid_runtime.memory.decide import check_memory
from consisid_runtime.memory.needs import ORDER, SHARED, Needs, Size, read
from consisid_runtime.memory.plan import (
    GIB,
    RESERVED,
    SETTINGS,
    SLOTS,
    MemoryPlan,
    covers,
    enough,
    fit,
    needed,
    owners,
    plan_memory,
)

PREVIEW = read()
PLANS = {setting: fit(PREVIEW, setting * GIB - RESERVED) for setting in SETTINGS}
WEIGHTS = dict.fromkeys(owners(), 10) | {"dit_step": 100}
SMALL = Needs(WEIGHTS, dict.fromkeys(ORDER, 5), 1, 8, 10, Size(100, 100))
"""A step of 100 bytes in eight blocks of 10, nine modules of 10 bytes."""


def planned(budget: int, needs: Needs = SMALL) -> MemoryPlan:
    found = fit(needs, budget)
    assert found is not None
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_a_plan_for_consisid_preview(setting: int) -> None:
    plan = PLANS[setting]
    assert plan is not None
    assert plan.peak <= setting * GIB - RESERVED == plan.budget
    for module in ORDER:
        assert {*plan.resident, *needed(module)} <= set(plan.company[module])
        weights = sum(PREVIEW.weights[name] for name in plan.company[module])
        saved = max(plan.streamed - SLOTS, 0) * PREVIEW.block if "dit_step" in plan.company[module] else 0
        assert plan.peaks[module] == PREVIEW.fixed + PREVIEW.working[module] + weights - saved


def test_more_memory_moves_less() -> None:
    plans = [PLANS[setting] for setting in SETTINGS]
    assert all(plans)
    moved = [sum(PREVIEW.weights[name] for name in owners() if name not in plan.resident) for plan in plans if plan]
    assert moved == sorted(moved, reverse=True) and moved[0] > moved[1] > moved[2] > moved[-1] == 0
    assert [bool(plan and plan.streamed) for plan in plans] == [True, *[False] * (len(SETTINGS) - 1)]


def test_within_24_gib_only_the_text_encoder_is_away_and_comes_while_the_face_is_looked_for() -> None:
    plan = PLANS[24]
    assert plan is not None
    assert set(owners()) - set(plan.resident) == {"text_encoder"}
    assert [module for module in ORDER if "text_encoder" in plan.company[module]] == list(ORDER[:5])


def test_no_more_blocks_are_streamed_than_must_be() -> None:
    everything = SMALL.fixed + 5 + sum(WEIGHTS.values())
    assert planned(everything).resident == tuple(owners())
    assert planned(everything - 1).resident != tuple(owners())
    step = SMALL.fixed + 5 + WEIGHTS["dit_step"] + WEIGHTS["dit_modulate"]
    assert planned(step).streamed == 0
    found = planned(step - 1)
    assert found.streamed == 2 * SLOTS and found.peak <= step - 1
    assert fit(SMALL, SMALL.fixed + WEIGHTS["dit_step"] - 1) is None, "the step is made on the device whole"


@pytest.mark.parametrize("setting", [12, 16, 24])
def test_weights_come_ahead_one_at_a_time_and_stay_until_they_are_needed(setting: int) -> None:
    plan = PLANS[setting]
    assert plan is not None
    away = set(owners()) - set(plan.resident)
    for before, module in pairwise(ORDER):
        ahead = (set(plan.company[before]) & away) - set(needed(before))
        assert len(ahead) <= 1 and ahead <= set(plan.company[module])
    if "dit_step" in away:
        assert "dit_step" in plan.company["dit_prepare"], "it has room there, and comes before it is needed"


def test_a_refusal_names_the_smallest_setting() -> None:
    larger = PREVIEW.at(Size(PREVIEW.size.tokens, 2 * PREVIEW.size.pixels))
    smallest = next(setting for setting in SETTINGS if fit(larger, setting * GIB - RESERVED))
    assert smallest > SETTINGS[0]
    with pytest.raises(
        MemoryTooSmall, match=rf"^memory 12 is too little .*: the smallest setting for it is {smallest}$"
    ):
        plan_memory(larger, 12 * GIB - RESERVED, "memory 12")
    with pytest.raises(MemoryTooSmall, match=r"it takes [\d.]+ GiB, more than any setting"):
        plan_memory(PREVIEW.at(Size(100 * PREVIEW.size.tokens, 1)), 12 * GIB - RESERVED, "memory 12")
    needs = PREVIEW.at(Size(100 * PREVIEW.size.tokens, 1))
    gib = float(enough(needs).split()[2])
    assert fit(needs, round((gib + 0.1) * GIB) - RESERVED) and not fit(needs, round((gib - 0.1) * GIB) - RESERVED)


def test_a_plan_covers_what_it_was_made_for_and_less() -> None:
    plan = PLANS[16]
    assert plan is not None
    assert covers(plan, PREVIEW)
    assert covers(plan, PREVIEW.at(Size(1, 1)))
    assert not covers(plan, PREVIEW.at(Size(2 * PREVIEW.size.tokens, PREVIEW.size.pixels)))
    assert not covers(plan, PREVIEW.at(Size(PREVIEW.size.tokens, 4 * PREVIEW.size.pixels)))


def test_needs_grow_with_the_video_and_never_shrink() -> None:
    double = SMALL.at(Size(200, 300))
    latents = 100 * 3 * 64 * 4
    grown = {name: count for name, count in double.working.items() if count != SMALL.working[name]}
    assert grown == {
        **{"dit_prepare": 10, "dit_modulate": 10, "dit_step": 10},
        **dict.fromkeys(("vae_encoder", "vae_decoder_first", "vae_decoder_next"), 15 + latents),
    }
    assert replace(SMALL.at(Size(50, 50)), size=SMALL.size) == SMALL


def test_the_table_is_of_every_module() -> None:
    assert list(PREVIEW.weights) == owners() and set(PREVIEW.working) == set(ORDER)
    assert set(SHARED) == set(ORDER) - set(owners())
    assert all(count > 0 for count in (*PREVIEW.weights.values(), *PREVIEW.working.values()))
    assert 0 < PREVIEW.blocks * PREVIEW.block < PREVIEW.weights["dit_step"]


@pytest.mark.parametrize("setting", [0, 13, "12", "all", "", True, 12.5, None])
def test_a_setting_that_there_is_not(setting: object) -> None:
    with pytest.raises(InvalidOption, match=r"memory must be 12, 16, 24, 48, 80 \(GiB\) or 'auto', got "):
        check_memory(setting)
