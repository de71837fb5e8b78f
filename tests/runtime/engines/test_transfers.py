"""How far the host may be ahead of a GPU, by stand-ins for CUDA's events; a CPU has nothing to wait for."""

from typing import Any

import pytest
import torch

from consisid_runtime.engines.transfers import Lead, receive, send


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with the events, which are numbered as they are made."""
    done: list[str] = []
    made: list[Any] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking  # who waits for a step of a second must not take a core for it
            made.append(self)
            self.number = len(made)

        def record(self, stream: str) -> None:
            done.append(f"record {self.number} on {stream}")

        def synchronize(self) -> None:
            done.append(f"wait for {self.number}")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    return done


def test_the_host_is_one_part_ahead_and_at_the_end_none(log: list[str]) -> None:
    lead = Lead(torch.device("cuda", 1))
    lead.part()
    assert log == ["record 1 on the stream of cuda:1"]
    lead.part()
    lead.part()
    assert log[1:] == [
        "record 2 on the stream of cuda:1", "wait for 1", "record 3 on the stream of cuda:1", "wait for 2",
    ]  # fmt: skip
    lead.finish()
    assert log[-1] == "wait for 3" and len(log) == 6


def test_without_a_part_there_is_nothing_to_wait_for(log: list[str]) -> None:
    Lead(torch.device("cuda")).finish()
    assert log == []


def test_on_a_cpu_nothing_is_copied_and_nobody_waits(log: list[str]) -> None:
    tensor = torch.randn(3)
    lead = Lead(tensor.device)
    lead.part()
    lead.finish()
    assert send(tensor, "cpu") is tensor
    assert [found is tensor for found in receive([tensor])()] == [True]
    assert log == []
