"""Every file of a checkpoint that is missing, truncated, foreign or misshapen is named."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.layout import CONFIGS, DETECTOR, PICKLES, RECOGNISER, SAFETENSORS, TOKENIZER

WEIGHTS = [f"{stem}.safetensors" for stem in SAFETENSORS.values()]
FILES = [*CONFIGS.values(), *WEIGHTS, *PICKLES.values(), TOKENIZER, DETECTOR, RECOGNISER]

Refusal = Callable[[Path], str]


def test_the_nano_checkpoint_is_complete(untrained: Path) -> None:
    checkpoint = Checkpoint.open(untrained)
    assert {str(file.relative_to(untrained)) for file in checkpoint.files()} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(damaged: Path, file: str, refusal: Refusal) -> None:
    (damaged / file).unlink()
    assert f"{file}: missing" in refusal(damaged)


def test_everything_missing_is_named_at_once(damaged: Path, refusal: Refusal) -> None:
    for file in FILES:
        (damaged / file).unlink()
    message = refusal(damaged)
    assert [file for file in FILES if f"{file}: missing" not in message] == []
    assert "missing; missing" not in message


@pytest.mark.parametrize("file", [name for name in FILES if name != TOKENIZER])
def test_a_truncated_file_is_named(damaged: Path, file: str, refusal: Refusal) -> None:
    content = (damaged / file).read_bytes()
    (damaged / file).write_bytes(content[: len(content) // 2])
    assert f"  {file}: " in refusal(damaged)


def test_a_wrong_width_names_tensor_and_file(damaged: Path, refusal: Refusal) -> None:
    file = damaged / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.conv.weight"] = tensors["decoder.conv_in.conv.weight"][:, :4].contiguous()
    del tensors["encoder.conv_in.conv.bias"]
    save_file(tensors, file)
    message = refusal(damaged)
    assert "vae/diffusion_pytorch_model.safetensors" in message
    assert "encoder.conv_in.conv.bias is missing" in message


def test_a_configuration_that_is_no_consisid_is_named(damaged: Path, refusal: Refusal) -> None:
    path = damaged / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_train_face": False}))
    assert "is_train_face" in refusal(damaged)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/executed"),))  # type: ignore[return-value]


def test_a_pickle_is_not_executed(damaged: Path, tmp_path: Path, refusal: Refusal) -> None:
    canary = tmp_path / "executed"
    Malicious.__reduce__ = lambda self: (Path.touch, (canary,))  # type: ignore[method-assign,assignment,return-value]
    for file in PICKLES.values():
        (damaged / file).write_bytes(pickle.dumps(Malicious()))
    message = refusal(damaged)
    assert all(file in message for file in PICKLES.values())
    assert not canary.exists()


def test_a_pickle_of_something_else_is_refused(damaged: Path, refusal: Refusal) -> None:
    torch.save([1, 2, 3], damaged / PICKLES["parser"])
    assert PICKLES["parser"] in refusal(damaged)


def test_a_file_in_pytorchs_old_format_is_read(damaged: Path) -> None:
    path = damaged / PICKLES["parser"]
    tensors = torch.load(path, weights_only=True)
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert Checkpoint.open(damaged).tensors("parser").keys() == tensors.keys()


def test_no_folder_says_how_to_get_one(tmp_path: Path, refusal: Refusal) -> None:
    assert "consisid nano" in refusal(tmp_path / "nowhere")


def test_sharded_weights_are_read(damaged: Path, refusal: Refusal) -> None:
    whole = damaged / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, whole.parent / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = whole.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": weight_map}))
    whole.unlink()
    assert Checkpoint.open(damaged).tensors("transformer").keys() == tensors.keys()
    (whole.parent / "b.safetensors").unlink()
    assert "b.safetensors: missing" in refusal(damaged)
