"""An exported graph refers to the checkpoint's own bytes; nothing holds or copies them that need not."""

import errno
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensor

from consisid_benchmarks.suites.full_checkpoint import TEXT_ENCODER, TRANSFORMER, VAE
from consisid_export.bundle.modules import write_module
from consisid_export.checkpoint import tensor_files
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.layout import SAFETENSORS
from consisid_export.checkpoint.skeleton import Skeleton
from consisid_export.checkpoint.tensor_files import Stored, pieces, stored_tensors, write_converted, write_tensors
from consisid_export.onnx.structure import check_structure, compare_weights, external_weights
from consisid_export.onnx.weights import provide_weights
from consisid_measurement.memory import in_fresh_process
from consisid_runtime.errors import CheckpointInvalid, ExportRefused
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.configs.dit import DiTConfig
from consisid_runtime.signatures import DIT_MODULATE

WHOLE = "transformer.diffusion_pytorch_model.safetensors"
VAE_FILE = "vae.diffusion_pytorch_model.safetensors"


@pytest.fixture
def checkpoint(untrained: Path) -> Checkpoint:
    return Checkpoint(untrained)


@pytest.fixture(scope="module")
def modulate(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `dit_modulate` and a copy of its weights."""
    checkpoint, folder = Checkpoint(untrained), tmp_path_factory.mktemp("modulate")
    write_module("dit_modulate", checkpoint, folder, networks.signatures(checkpoint)["dit_modulate"], copy=True)
    return folder


def read(tensor: Stored) -> torch.Tensor:
    return torch.cat(list(pieces(tensor))).reshape(tensor.shape)


def test_weights_stay_in_the_checkpoints_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    signature = networks.signatures(checkpoint)["dit_prepare"]
    record = write_module("dit_prepare", checkpoint, tmp_path, signature)
    assert record["files"] == ["dit_prepare.onnx", WHOLE]
    assert record["check"]["kind"] == "numeric"
    original = checkpoint.path / "transformer" / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / WHOLE).samefile(original)
    graph = tmp_path / "dit_prepare.onnx"
    network = networks.load("dit_prepare", checkpoint)
    assert compare_weights(graph, checkpoint, "dit_prepare") == sum(4 * t.numel() for t in network.parameters())
    # Everything that is not external is a constant of the graph's own.
    assert sum(len(t.raw_data) for t in onnx.load(graph, load_external_data=False).graph.initializer) < 1000
    assert graph.stat().st_size < 50_000


def test_no_path_of_this_machine_is_in_a_graph(modulate: Path) -> None:
    assert str(Path(__file__).parents[3]).encode() not in (modulate / "dit_modulate.onnx").read_bytes()


def test_shards_are_linked_and_run(untrained: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint(Path(shutil.copytree(untrained, tmp_path / "checkpoint")))
    whole = checkpoint.path / f"{SAFETENSORS['transformer']}.safetensors"
    tensors = load_file(whole)
    shards = {f"shard-{i}.safetensors": sorted(tensors)[i::2] for i in range(2)}
    for shard, names in shards.items():
        save_file({name: tensors[name] for name in names}, whole.with_name(shard))
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    whole.unlink()
    (out := tmp_path / "out").mkdir()
    record = write_module("dit_modulate", checkpoint, out, networks.signatures(checkpoint)["dit_modulate"])
    assert record["files"] == ["dit_modulate.onnx", *(f"transformer.{shard}" for shard in shards)]
    assert record["check"]["error"] <= 1e-5
    assert all((out / f"transformer.{shard}").samefile(whole.with_name(shard)) for shard in shards)


@pytest.mark.parametrize("reason", ["asked for", "other file system"])
def test_a_copy_is_made(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if reason == "other file system":
        monkeypatch.setattr(os, "link", refuse)
    provide_weights("vae_encoder", checkpoint, tmp_path, torch.float32, copy=reason == "asked for")
    original = checkpoint.path / "vae" / "diffusion_pytorch_model.safetensors"
    assert not (tmp_path / VAE_FILE).samefile(original)
    assert (tmp_path / VAE_FILE).read_bytes() == original.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [VAE_FILE]


def test_a_failed_copy_leaves_no_file_to_be_taken_for_one(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(OSError, match="No space left"):
        provide_weights("vae_encoder", checkpoint, tmp_path, torch.float32, copy=True)
    assert list(tmp_path.iterdir()) == []


def test_another_dtype_is_converted_once_for_all_modules(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "PIECE", 1000)  # so that tensors have many
    first = provide_weights("vae_decoder_first", checkpoint, tmp_path, torch.float16)
    following = provide_weights("vae_decoder_next", checkpoint, tmp_path, torch.float16)
    encoder = provide_weights("vae_encoder", checkpoint, tmp_path, torch.float16)
    assert following == first
    assert {weight.file.name for weight in encoder.values()} == {"vae.vae_encoder.safetensors"}
    original = checkpoint.tensors("vae")
    for name, weight in (first | encoder).items():
        assert torch.equal(read(weight), original[name].half()), name
    # A file like any other.
    assert load_file(tmp_path / "vae.vae_encoder.safetensors").keys() == encoder.keys()


def test_a_checkpoint_that_mixes_dtypes_is_converted_only_where_it_must(untrained: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint(Path(shutil.copytree(untrained, tmp_path / "checkpoint")))
    file = checkpoint.path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: t.half() if "conv" in name else t for name, t in tensors.items()}, file)
    (out := tmp_path / "out").mkdir()
    weights = provide_weights("vae_encoder", checkpoint, out, torch.float16)
    assert {weights[name].file.name for name in weights if "conv" in name} == {VAE_FILE}
    assert {weights[name].file.name for name in weights if "conv" not in name} == {"vae.vae_encoder.safetensors"}


def test_a_skeleton_has_no_values(checkpoint: Checkpoint) -> None:
    for module in networks.COMPONENTS:
        network = networks.load(module, Skeleton(checkpoint), torch.bfloat16)
        values = [name for name, tensor in network.state_dict().items() if not isinstance(tensor, FakeTensor)]
        assert [name for name in values if not name.startswith("rope.")] == [], module
        assert {t.dtype for t in network.parameters()} == {torch.bfloat16}


def test_loading_as_stored_copies_nothing(checkpoint: Checkpoint) -> None:
    stored = checkpoint.tensors("vae")

    class Source:
        config = checkpoint.config

        def tensors(self, component: str) -> dict[str, torch.Tensor]:
            return stored

    for name, parameter in networks.load("vae_encoder", Source(), None).state_dict().items():
        assert parameter.data_ptr() == stored[name].data_ptr()


def test_a_weight_changed_or_cut_off_is_found(checkpoint: Checkpoint, modulate: Path, tmp_path: Path) -> None:
    signature = networks.signatures(checkpoint)["dit_modulate"]
    folder = Path(shutil.copytree(modulate, tmp_path / "damaged"))
    graph, data = folder / "dit_modulate.onnx", folder / WHOLE
    weights = external_weights(onnx.load(graph, load_external_data=False), folder)
    last = max(weights, key=lambda name: weights[name].offset)
    content = bytearray(data.read_bytes())
    content[weights[last].offset + weights[last].length - 1] ^= 1
    data.write_bytes(content)
    with pytest.raises(ExportRefused, match=f"{last} in {WHOLE} is not the checkpoint's"):
        compare_weights(graph, checkpoint, "dit_modulate")
    check_structure(graph, signature)
    narrow = replace(signature, outputs=tuple(replace(port, dtype="FP16") for port in signature.outputs))
    with pytest.raises(ExportRefused, match="_modulations is FLOAT, its signature says FP16"):
        check_structure(graph, narrow)
    data.write_bytes(content[: weights[last].offset + weights[last].length - 1])
    with pytest.raises(ExportRefused, match=f"{last} ends behind the end of {WHOLE}"):
        check_structure(graph, signature)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 64, (4).to_bytes(8, "little") + b"{no}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="not a safetensors file"):
        stored_tensors(tmp_path / "x")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(10)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:-1])
    with pytest.raises(CheckpointInvalid, match=rf"has {len(content) - 1} bytes, its header needs {len(content)}"):
        stored_tensors(tmp_path / "x")


def test_a_converted_file_is_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {"odd": torch.arange(3.0), "none": torch.empty(0, 2), "steps": torch.tensor(7), "m": torch.randn(2, 3).T}
    write_converted(tmp_path / "x", tensors, torch.bfloat16)
    found = load_file(tmp_path / "x")
    for name, tensor in tensors.items():
        expected = tensor.bfloat16() if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], expected), name
    assert stored_tensors(tmp_path / "x")["steps"].offset % 8 == 0


def test_the_full_size_costs_neither_memory_nor_disk(tmp_path: Path) -> None:
    """12.4 GB of weights, of which the disk holds only the header: nothing reads the rest."""
    configs = {"transformer": TRANSFORMER, "vae": VAE, "text_encoder": TEXT_ENCODER}
    skeletons = networks.skeletons(CheckpointConfig(configs.__getitem__))
    shapes = {n: tuple(t.shape) for part in skeletons["transformer"] for n, t in part.state_dict().items()}
    parameters = sum(torch.Size(s).numel() for name, s in shapes.items() if name != networks.LEARNED_POSITIONS)
    assert parameters == 6_162_495_040
    source, out = tmp_path / "checkpoint", tmp_path / "out"
    file = source / f"{SAFETENSORS['transformer']}.safetensors"
    file.parent.mkdir(parents=True)
    out.mkdir()
    (file.parent / "config.json").write_text(json.dumps(TRANSFORMER))
    (source / "vae").mkdir()
    for component in ("vae", "text_encoder", "scheduler"):
        (source / component).mkdir(exist_ok=True)
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        (source / component / name).write_text("{}")
    write_tensors(file, {name: (torch.bfloat16, shape) for name, shape in shapes.items()}, lambda name: [])
    size = file.stat().st_size + 2 * sum(torch.Size(shape).numel() for shape in shapes.values())
    os.truncate(file, size)
    signature = DIT_MODULATE.bind(DiTConfig.from_dict(TRANSFORMER).dims)
    write = partial(write_module, "dit_modulate", Checkpoint(source), out, signature, precision="bf16")
    record, peak = in_fresh_process(write)
    assert record["check"]["kind"] == "structural"
    assert peak is not None
    assert peak < 2 << 30
    assert sum(path.stat().st_size for path in out.iterdir() if path.stat().st_nlink == 1) < size / 1000


def test_weights_of_finished_modules_are_not_overwritten(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An older module keeps the file that it refers to when one of its component is exported again."""
    theirs = tmp_path / "vae.vae_encoder.safetensors"
    save_file({"of another": torch.zeros(3, dtype=torch.float16)}, theirs)
    before = theirs.read_bytes()
    weights = provide_weights("vae_encoder", checkpoint, tmp_path, torch.float16)
    assert theirs.read_bytes() == before
    assert {weight.file.name for weight in weights.values()} == {"vae.vae_encoder-2.safetensors"}
