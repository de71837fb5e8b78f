"""The step in ConsisID-preview's size: what its export costs, and that TensorRT-RTX takes each of its nodes.

Needs 13 GB of disk under build/proof, kept for the next run, and another 13 GB while it runs.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from consisid_benchmarks.suites.export import in_fresh_process
from consisid_benchmarks.suites.export_variants import step_signature, write_step, write_step_in_fp8
from consisid_benchmarks.suites.full_checkpoint import VAE, write_full_checkpoint
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.structure import compare_weights
from consisid_export.tensorrt import build as adapter
from consisid_runtime.engines.tensorrt_library import load
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.plan import Geometry

FULL = Path(__file__).parents[3] / "build" / "proof" / "full"
LAYERS = 42
SECONDS = 180
PEAK_RSS = 4 << 30
EXTRA_DISK = 0.01
"""Share of the weights that an export in their own dtype may write."""

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    write_full_checkpoint(FULL, only="transformer")
    return Checkpoint(FULL)


def geometry(checkpoint: Checkpoint) -> Geometry:
    """Of a checkpoint that consists of its transformer alone, beside the full-size VAE's configuration."""
    files = {"transformer": checkpoint.config.file("transformer"), "vae": VAE}
    return CheckpointConfig(files.__getitem__).geometry


@pytest.fixture
def parsers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parsers that `unsupported_nodes` makes, which know afterwards what each node was found to be."""
    name, trt = load("tensorrt-rtx")
    made: list[Any] = []

    def make(network: Any, log: Any) -> Any:
        made.append(trt.OnnxParser(network, log))
        return made[-1]

    watched = ModuleType(trt.__name__)
    watched.__dict__.update(trt.__dict__)
    watched.OnnxParser = make  # type: ignore[attr-defined]
    monkeypatch.setattr(adapter, "load", lambda library: (name, watched))
    return made


def examined(parser: Any) -> list[int]:
    """Indices of the nodes that lie in one of the parts which TensorRT cuts the graph into; refused ones do not."""
    return sorted(node for part in range(parser.num_subgraphs) for node in parser.get_subgraph_nodes(part))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_step_costs_little_and_tensorrt_takes_every_node(
    checkpoint: Checkpoint, parsers: list[Any], proof: Callable[[str], Any], precision: str
) -> None:
    record = proof("full-size")
    if precision in record.trials:
        return
    signature = step_signature(checkpoint)
    sizes = geometry(checkpoint)
    weights = sum(file.stat().st_size for file in (FULL / "transformer").glob("*.safetensors"))
    with tempfile.TemporaryDirectory(dir=FULL.parent) as folder:
        cost = in_fresh_process(partial(write_step, "ours", FULL, precision), Path(folder))
        graph = Path(folder, "dit_step.onnx")
        compared = compare_weights(graph, checkpoint, "dit_step")
        model = onnx.load(graph, load_external_data=False)
        nodes = len(model.graph.node)
        attention = [node for node in model.graph.node if node.op_type == "Attention"]
        unsupported = adapter.unsupported_nodes(graph, signature, sizes)
        # One node that it lacks, deep inside, is found: the check looks at each.
        attention[-1].op_type = "Det"
        onnx.save(model, graph)
        (found,) = adapter.unsupported_nodes(graph, signature, sizes)
    whole, without_one = map(examined, parsers)
    assert len(attention) == LAYERS
    assert unsupported == []
    assert parsers[0].is_subgraph_supported(0)
    assert whole == list(range(nodes))
    assert found.startswith(f"Det {attention[-1].name!r}: UNSUPPORTED_NODE")
    assert len(without_one) == nodes - 1
    assert cost["export_seconds"] <= SECONDS
    assert cost["peak_rss_bytes"] <= PEAK_RSS
    assert cost["written_bytes"] <= EXTRA_DISK * weights + (0 if precision == "bf16" else compared)
    record.record(
        precision,
        nodes=nodes,
        nodes_checked=len(whole),
        unsupported=unsupported,
        seconds=round(cost["export_seconds"], 1),
        peak_rss_bytes=int(cost["peak_rss_bytes"]),
        written_bytes=int(cost["written_bytes"]),
        checkpoint_bytes=weights,
        weight_bytes_compared=compared,
        tensorrt_rtx=load("tensorrt-rtx")[1].__version__,
    )


def test_the_step_in_fp8_is_streamed_and_tensorrt_takes_every_node(
    checkpoint: Checkpoint, proof: Callable[[str], Any]
) -> None:
    record = proof("full-size")
    if "fp8" in record.trials:
        return
    with tempfile.TemporaryDirectory(dir=FULL.parent) as folder:
        cost = in_fresh_process(partial(write_step_in_fp8, FULL), Path(folder))
        graph = Path(folder, "dit_step.onnx")
        nodes = [node.op_type for node in onnx.load(graph, load_external_data=False).graph.node]
        sizes = geometry(checkpoint)
        unsupported = adapter.unsupported_nodes(graph, step_signature(checkpoint), sizes, library="tensorrt-rtx")
    # Six layers a block; queries, keys and values share their input.
    assert nodes.count("QuantizeLinear") == 4 * LAYERS and nodes.count("DequantizeLinear") == (4 + 6) * LAYERS
    assert unsupported == []
    assert cost["peak_rss_bytes"] <= PEAK_RSS
    record.record(
        "fp8",
        nodes=len(nodes),
        unsupported=unsupported,
        seconds=round(cost["export_seconds"], 1),
        peak_rss_bytes=int(cost["peak_rss_bytes"]),
        written_bytes=int(cost["written_bytes"]),
    )
