"""Times calls on a GPU, and measures the GPU's peak matrix product and copy rates."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from statistics import median

from consisid_runtime.errors import MissingExtra


def require_gpu(suite: str) -> None:
    """Raises `MissingExtra` where PyTorch sees no NVIDIA GPU."""
    import torch

    if not torch.cuda.is_available():
        raise MissingExtra(f"benchmark {suite!r} needs an NVIDIA GPU and a CUDA build of PyTorch")


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Seconds of `repeats` calls between two CUDA events on the current stream."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """A replay of `call` from a CUDA graph, or `call` itself if it cannot be captured."""
    import torch

    graph = torch.cuda.CUDAGraph()
    call()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return call
    return graph.replay


def ceilings() -> dict[str, float | None]:
    """Measured rates of this GPU: bf16 product of 8192² matrices in TFLOPS, copy of 4 GiB in GB/s (reads and writes),
    and its clocks in MHz."""
    import torch

    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(2**30, device="cuda")
    target = torch.empty_like(source)
    product = _median(lambda: torch.mm(left, right))
    copy = _median(lambda: target.copy_(source))
    current, largest = _clocks()
    return {
        "matmul_bf16_tflops": round(2 * 8192**3 / product / 1e12, 1),
        "copy_gbps": round(2 * source.nbytes / copy / 1e9, 1),
        "sm_clock_mhz": current,
        "largest_sm_clock_mhz": largest,
    }


def _median(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    while time.monotonic() - begin < 1:  # warm up until the clocks have risen
        seconds(work, 5)
    return median(seconds(work, 10) / 10 for _ in range(9))


def _clocks() -> tuple[float | None, float | None]:
    command = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        current, largest = done.stdout.splitlines()[0].split(",")
        return float(current), float(largest)
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None, None


if __name__ == "__main__":
    require_gpu("ceilings")
    print(json.dumps(ceilings()))
