"""What a GPU does a second: published or measured peaks, and the share of them that each kind of work should reach."""

from __future__ import annotations

from dataclasses import dataclass

from consisid_measurement.record import Record


@dataclass(frozen=True, slots=True)
class Share:
    """Of a peak: at worst, likely, at best; and where that comes from."""

    worst: float
    likely: float
    best: float
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """Peaks: dense products in TFLOP/s, memory in GB/s; capacity in bytes, None where it is not known."""

    name: str
    tflops_bf16: float
    gbps: float
    memory: int | None
    source: str


DEVICES = {
    "h200": Device("NVIDIA H200 SXM", 989.5, 4800, 141 * 10**9, "NVIDIA H200 datasheet; dense is half of sparse"),
    "h100": Device("NVIDIA H100 SXM", 989.5, 3350, 80 * 10**9, "NVIDIA H100 datasheet; dense is half of sparse"),
}
"""Name of a prediction → the GPU."""

SHARES = {
    "product": Share(0.65, 0.72, 0.77, "guess: large bf16 products of cuBLAS on Hopper, published runs reach 600–800"),
    "_scaled_mm.default": Share(
        1.1, 1.3, 1.45, "guess: E4M3 has twice the peak, and published runs reach 1,100–1,400 TFLOP/s; not measured"
    ),
    "triton.ffn": Share(0.53, 0.61, 0.67, "guess: persistent Triton products with an epilogue; not measured"),
    "triton.joint": Share(
        0.36, 0.43, 0.51, "guess: FlashAttention-2 reaches 0.35, 3 reaches 0.50 of the peak at 64 channels a head"
    ),
    "triton.joint_hopper": Share(
        0.43,
        0.50,
        0.57,
        "guess: at worst as the plain form, likely as FlashAttention-3 at 64 channels a head, at best what its "
        "counted instructions allow; not measured",
    ),
    "triton.face": Share(0.20, 0.26, 0.33, "guess: not measured"),
    "convolution": Share(0.25, 0.40, 0.55, "guess: cuDNN in bf16, channels first; not measured"),
    "float32": Share(0.03, 0.045, 0.06, "datasheet: 67 TFLOP/s without tensor cores, 0.068 of the peak in bf16"),
    "bytes": Share(0.58, 0.69, 0.77, "guess: element-wise passes over memory, published copies reach 0.9"),
}
"""Kind of work → share of the peak. No figure of these is measured on this project's kernels."""

MEASURED_PRODUCT, MEASURED_COPY = SHARES["product"].best, 0.9
"""Shares of the peak that a record's ceilings are taken to be: a product of large square matrices is the best case of
products, and published copies reach 0.9."""

LAUNCH_SECONDS = Share(
    60e-6, 20e-6, 6e-6, "guess: host time of an operator; a Triton launch takes 22 to 70 µs of Python"
)
GRAPH_GAP_SECONDS = Share(
    2e-6, 1e-6, 0.4e-6, "guess: by how much a CUDA graph shortens the device's pause between two kernels; NVIDIA, "
    "Getting Started with CUDA Graphs (2019): from 0.9 to 0.5 µs on a V100"
)  # fmt: skip
WAIT_SECONDS = Share(100e-6, 40e-6, 15e-6, "guess: a wait of the host, and the idle device after it")
PAGEABLE_GBPS = 8.0
"""A copy from or to pageable host memory: guess."""


def measured(record: Record) -> Device | None:
    """The device of a record, its peaks from the ceilings measured in the same run; None where these are missing."""
    product, copy = (record.ceilings.get(name) for name in ("matmul_bf16_tflops", "copy_gbps"))
    if not product or not copy:
        return None
    source = (
        f"from the product of {product:g} TFLOP/s and the copy of {copy:,g} GB/s that suite {record.suite} measured at "
        f"commit {record.commit}, {record.when}"
    )
    name = record.machine.gpu or record.machine.name
    return Device(name, round(product / MEASURED_PRODUCT, 1), round(copy / MEASURED_COPY, 1), None, source)
