import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from consisid_benchmarks.suites import export, export_variants
from consisid_benchmarks.suites.export_variants import (
    interface,
    require_same_network,
    stored_precision,
    timed,
    written_bytes,
)
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.structure import external_weights
from consisid_measurement import environment
from consisid_measurement.harness import Mismatch
from consisid_runtime.models import networks
from consisid_runtime.signatures import Port, Signature

PEER = "torch-onnx-export/unoptimised"
SIGNATURE = Signature("scaled", (Port("x", "FP32", (1, "frames")),), (Port("y", "FP32", (1, "frames")),))


@pytest.fixture(scope="module")
def shallow(checkpoint_of: Callable[..., Path]) -> Path:
    """An untrained checkpoint with half of the layers."""
    return checkpoint_of(num_layers=2)


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a graph of SIGNATURE: y = scale · x."""

    def write(scale: float, *, length: int | str = "frames", output: str = "y") -> Path:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, length]) for name in ("x", output))
        factor = helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale])
        node = helper.make_node("Mul", ["x", "scale"], [output])
        model = helper.make_model(
            helper.make_graph([node], "scaled", [x], [y], [factor]),
            opset_imports=[helper.make_opsetid("", 23)],
            ir_version=10,
        )
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(model, path)
        return path

    return write


def test_ours_and_the_peer_export_the_same_network_and_are_measured(
    shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Path] = []

    def measured(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
        """Run in this process, and keep the folder's contents."""
        found = timed(work, folder)
        kept.append(Path(shutil.copytree(folder, tmp_path / f"{len(kept)}", copy_function=os.link)))
        return found

    monkeypatch.setattr(export, "in_fresh_process", measured)
    variants = ("ours", PEER)
    rows = export.measure(
        "nano", shallow, rounds=1, warmup=0, chosen=variants, precision="fp32", progress=lambda *_: None
    )
    assert {(row.case, row.n) for row in rows} == {("nano/dit_step", 1)}
    assert [(row.variant, row.metric) for row in rows] == list(product(variants, ("export_seconds", "written_bytes")))
    assert all(row.median > 0 for row in rows)
    signature = export_variants.step_signature(Checkpoint(shallow))
    graphs = {variant: folder / "dit_step.onnx" for variant, folder in zip(variants, kept, strict=True)}
    require_same_network(graphs, signature)
    assert [name for name, *_ in interface(graphs[PEER])] == [
        port.name for port in (*signature.inputs, *signature.outputs)
    ]
    # The peer writes the weights that our graph only refers to.
    ours, peer = (
        sum(weight.length for weight in external_weights(onnx.load(graph, load_external_data=False), folder).values())
        for graph, folder in zip(graphs.values(), kept, strict=True)
    )
    assert peer == pytest.approx(ours, rel=0.01)
    written = {row.variant: row.median for row in rows if row.metric == "written_bytes"}
    assert written["ours"] < ours / 10 < ours <= written[PEER]
    assert not list(shallow.parent.glob("tmp*"))


def test_variants_with_different_outputs_are_refused(graph: Callable[..., Path]) -> None:
    require_same_network({"ours": graph(2.0), "peer": graph(2.0 * (1 + 1e-6))}, SIGNATURE)
    with pytest.raises(Mismatch, match=r"y of peer and ours differ by 1\.0e-04, the limit is 1e-05"):
        require_same_network({"ours": graph(2.0), "peer": graph(2.0 * (1 + 1e-4))}, SIGNATURE)


def test_variants_with_other_axes_or_names_are_refused(graph: Callable[..., Path]) -> None:
    for other in (graph(2.0, length=3), graph(2.0, output="z")):
        with pytest.raises(Mismatch, match="peer has inputs and outputs"):
            require_same_network({"ours": graph(2.0), "peer": other}, SIGNATURE)


def test_a_fresh_process_reports_its_time_disk_and_memory(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(1_000_000))
    (tmp_path / "folder").mkdir()
    found = export.in_fresh_process(partial(shutil.copy, tmp_path / "source"), tmp_path / "folder")
    assert (tmp_path / "folder" / "source").stat().st_size == 1_000_000
    assert 1_000_000 <= found["written_bytes"] < 1_100_000
    assert 0 < found["export_seconds"] < 60
    if sys.platform == "linux":
        assert 100_000_000 < found["peak_rss_bytes"] < 1_000_000_000


def test_a_whole_checkpoint_is_measured_module_by_module_and_compared(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "in_fresh_process", timed)
    modules = ("dit_prepare", "dit_modulate")
    rows = export.measure_all(untrained, lambda *_: None, groups={"dit": modules})
    found = {(row.case, row.metric): row.median for row in rows}
    assert found.keys() == {
        ("full", "checkpoint_bytes"),
        *(("full/dit", metric) for metric in ("export_seconds", "written_bytes", "compared_bytes")),
    }
    assert found["full", "checkpoint_bytes"] == sum(path.stat().st_size for path in Checkpoint(untrained).files())
    loaded = [networks.load(module, Checkpoint(untrained)) for module in modules]
    weights = sum(4 * parameter.numel() for network in loaded for parameter in network.parameters())
    assert found["full/dit", "compared_bytes"] == weights
    assert 0 < found["full/dit", "written_bytes"] < weights / 10
    assert not list(untrained.parent.glob("tmp*"))


def test_the_gate_exists() -> None:
    assert (environment.checkout() / export.GATE).is_file()


def test_hard_linked_files_use_no_disk(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(bytes(1_000_000))
    folder = tmp_path / "export"
    folder.mkdir()
    os.link(tmp_path / "checkpoint", folder / "weights")
    assert written_bytes(folder) == 0
    (folder / "graph").write_bytes(b"x" * 10_000)
    assert 10_000 <= written_bytes(folder) < 100_000


def test_a_module_is_exported_in_the_dtype_of_most_of_its_weights(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored_precision("clip", Checkpoint(untrained)) == "fp32"
    for dtype, precision in ((torch.float16, "fp16"), (torch.bfloat16, "bf16")):
        mixed = {"scale": torch.ones(2), "offset": torch.ones(2), "matrix": torch.ones(5, 1, dtype=dtype)}
        monkeypatch.setattr(export_variants, "stored_weights", lambda *_, mixed=mixed: mixed)
        assert stored_precision("clip", Checkpoint(untrained)) == precision


def test_a_missing_checkpoint_is_written_and_an_existing_one_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from consisid_benchmarks.suites import full_checkpoint

    written: list[str] = []

    def write(folder: Path) -> None:
        folder.mkdir()
        written.append(folder.name)

    monkeypatch.setattr(full_checkpoint, "write_full_checkpoint", write)
    for _ in range(2):
        assert export._written(tmp_path / "full").is_dir()
    assert written == [".full.part"]
    assert os.listdir(tmp_path) == ["full"]
