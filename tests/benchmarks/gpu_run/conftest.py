from typing import Any, ClassVar

import pytest
from torch import Tensor

from consisid_benchmarks.fake_gpu.full_size import FullSize
from consisid_benchmarks.gpu_run import full_size
from consisid_benchmarks.gpu_run.stopwatch import Gauge
from consisid_nano.untrained.configs import SCHEDULER, configs


@pytest.fixture(scope="session")
def tiny() -> dict[str, dict[str, Any]]:
    """Component → the configuration of the untrained checkpoint, for the published face networks."""
    small = configs("small")
    return {
        "transformer": {**small["transformer"], "LFE_vit_dim": 1024, "LFE_id_dim": 1280},
        "vae": small["vae"],
        "text_encoder": {**small["text_encoder"], "vocab_size": 64},
        "scheduler": SCHEDULER,
    }


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A component's weights are the same in every bundle of its size."""
    monkeypatch.setattr(full_size, "FullSize", _Remembering)


class _Remembering(FullSize):
    drawn: ClassVar[dict[str, dict[str, Tensor]]] = {}

    def tensors(self, component: str) -> dict[str, Tensor]:
        key = f"{component} {self.shapes(component)}"
        if key not in self.drawn:
            self.drawn[key] = super().tensors(component)
        return dict(self.drawn[key])


@pytest.fixture
def gauge() -> Gauge:
    """A second passes between two readings of the clock; the memory is 8 bytes."""
    seconds = iter(range(10**6))
    return Gauge(lambda: None, lambda: None, lambda: 8, lambda: float(next(seconds)))
