import itertools

import pytest

from consisid_benchmarks.suites.serving.arrivals import Kind, poisson
from consisid_benchmarks.suites.serving.loaded import rate_of
from consisid_measurement.record import Row

SMALL, LARGE, URGENT = Kind(17), Kind(49), Kind(17, urgent=True)


def test_a_seed_always_gives_the_same_arrivals() -> None:
    mix = {SMALL: 0.7, URGENT: 0.3}
    assert poisson(5.0, 60.0, mix, 1) == poisson(5.0, 60.0, mix, 1)
    assert poisson(5.0, 60.0, mix, 1) != poisson(5.0, 60.0, mix, 2)
    first = poisson(2.0, 2.0, {SMALL: 1.0}, 14)[0]
    assert first.at == pytest.approx(0.0564, abs=1e-4), "recorded: other Pythons draw the same"


def test_arrivals_have_the_rate_and_the_gaps_of_a_poisson_process() -> None:
    found = poisson(10.0, 1000.0, {SMALL: 1.0}, 3)
    assert [arrival.number for arrival in found] == list(range(len(found)))
    assert len(found) == pytest.approx(10_000, abs=400)  # four standard deviations
    times = [arrival.at for arrival in found]
    assert times[0] > 0 and times == sorted(times) and times[-1] < 1000
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(gap > 0.1 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)  # 1/e are longer than the mean


def test_the_kinds_have_their_shares() -> None:
    found = poisson(10.0, 1000.0, {SMALL: 3.0, LARGE: 1.0}, 3)
    assert sum(arrival.kind == LARGE for arrival in found) / len(found) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)])
def test_impossible_arrivals_are_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0, got"):
        poisson(rate, seconds, {SMALL: 1.0}, 0)


def test_a_load_of_one_keeps_the_server_busy_with_the_mix() -> None:
    closed = [
        Row(case, "ours", "latency_p50_seconds", seconds, seconds, seconds, 1)
        for case, seconds in (("1 client, 17 frames", 0.5), ("4 clients, 17 frames", 2.0), ("1 client, 49 frames", 1.5))
    ]
    assert rate_of(0.8, {SMALL: 1.0}, closed) == pytest.approx(1.6)
    assert rate_of(1.0, {SMALL: 1.0, URGENT: 1.0, LARGE: 2.0}, closed) == pytest.approx(1.0)
