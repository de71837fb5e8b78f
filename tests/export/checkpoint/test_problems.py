"""What is wrong inside of a checkpoint's files, and between them, is named at once."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from consisid_export.checkpoint import tokenizer
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.contents import read_json
from consisid_export.checkpoint.layout import CONFIGS, DETECTOR, PICKLES, RECOGNISER, SAFETENSORS, TOKENIZER
from consisid_export.checkpoint.shards import shard_names
from consisid_runtime.errors import CheckpointInvalid

WEIGHTS = [f"{stem}.safetensors" for stem in SAFETENSORS.values()]
FILES = [*CONFIGS.values(), *WEIGHTS, *PICKLES.values(), TOKENIZER, DETECTOR, RECOGNISER]

Refusal = Callable[[Path], str]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 791656\n" % (b"4d7a" * 16)


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_git_lfs_pointers_are_named_as_such_in_place_of_every_file(damaged: Path, refusal: Refusal) -> None:
    for file in FILES:
        (damaged / file).write_bytes(POINTER)
    said = refusal(damaged).splitlines()
    assert [
        file for file in FILES if not any(line.startswith(f"  {file}: is a git-lfs pointer") for line in said)
    ] == []
    assert all("git lfs pull" in line for line in said if line.startswith("  "))
    assert "git lfs pull" in CheckpointInvalid.remedy


@pytest.mark.parametrize("file", ["tokenizer/tokenizer_config.json", "model_index.json"])
def test_a_pointer_in_place_of_an_optional_file_is_named_too(damaged: Path, file: str, refusal: Refusal) -> None:
    (damaged / file).write_bytes(POINTER)
    assert f"{file}: is a git-lfs pointer" in refusal(damaged)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{" * 100_000, "is not JSON"),
        (b"[" * 100_000, r"is not JSON \(it is nested deeper than 64"),
        (b"[1]", "expected a JSON object"),
        (b'{"a": NaN}', r"is not JSON \(NaN is not a finite number"),
        (b'{"a": 1e999}', r"is not JSON \(1e999 is not a finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"", "is empty"),
    ],
)
def test_a_malformed_json_file_is_a_typed_error(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=f"^{said}"):
        read_json(tmp_path / "config.json")


def test_every_json_file_may_be_malformed(damaged: Path, refusal: Refusal) -> None:
    files = [*CONFIGS.values(), "model_index.json", *tokenizer.SETTINGS]
    for file in files:
        (damaged / file).write_bytes(b"[" * 100_000)
    said = refusal(damaged)
    assert [file for file in files if f"  {file}: is not JSON (it is nested deeper" not in said] == []


def test_a_folder_in_place_of_a_file_is_named(damaged: Path, refusal: Refusal) -> None:
    (damaged / TOKENIZER).unlink()
    (damaged / TOKENIZER).mkdir()
    assert f"{TOKENIZER}: is no file" in refusal(damaged)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        (None, "weight_map must be an object"),
        ([], "weight_map must be an object"),
        ({}, "weight_map must be an object"),
        ({"a": 3}, "is 3, wanted the name of a file"),
        ({"a": "../model.safetensors"}, "'../model.safetensors', wanted the name of a file"),
        ({"a": "/etc/passwd"}, "'/etc/passwd', wanted the name of a file"),
        ({"a": ".."}, "'..', wanted the name of a file"),
        ({"a": "x\0y"}, "wanted the name of a file"),
    ],
)
def test_a_malformed_index_is_a_typed_error(tmp_path: Path, weight_map: object, said: str) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointInvalid, match=said):
        shard_names(tmp_path / "index.json")


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        (3, "vae/diffusion_pytorch_model.safetensors.index.json: weight_map must be an object"),
        ({"a": "gone.safetensors"}, "vae/gone.safetensors: missing"),
        ({"a": "n" * 300}, "cannot be read (File name too long)"),
        (
            {"a": "diffusion_pytorch_model.safetensors"},
            "lists a in diffusion_pytorch_model.safetensors, which does not",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_named(damaged: Path, weight_map: object, said: str, refusal: Refusal) -> None:
    index = damaged / "vae/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert said in refusal(damaged)


def test_a_tensor_that_the_index_does_not_list_is_named(damaged: Path, refusal: Refusal) -> None:
    file = damaged / "vae/diffusion_pytorch_model.safetensors"
    names = sorted(load_file(file))[1:]
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, file.name)}))
    assert "does not list decoder.conv_in.conv.bias, which diffusion_pytorch_model.safetensors holds" in refusal(
        damaged
    )


def test_where_one_file_and_an_index_are_there_each_library_has_its_own_rule(damaged: Path, refusal: Refusal) -> None:
    """transformers reads the file (so this index is not looked at), diffusers the index."""
    for stem in SAFETENSORS.values():
        (damaged / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    said = refusal(damaged)
    assert "transformer/gone.safetensors: missing" in said and "vae/gone.safetensors: missing" in said
    assert "text_encoder" not in said


def test_all_that_does_not_fit_is_said_when_the_folder_is_opened(damaged: Path, refusal: Refusal) -> None:
    wrong: list[tuple[str, dict[str, object], str]] = [
        ("text_encoder/config.json", {"vocab_size": 300}, "vocab_size is 300, wanted "),
        ("text_encoder/config.json", {"d_model": 64}, "d_model is 64, wanted 32 as text_embed_dim"),
        ("vae/config.json", {"latent_channels": 8}, "latent_channels is 8, wanted 16 as out_channels"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule is"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type is 'flow'"),
        ("model_index.json", {"_class_name": "CogVideoXImageToVideoPipeline"}, "_class_name is"),
        ("model_index.json", {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}, "wanted CogVideoXDPMScheduler or"),
        ("model_index.json", {"upscaler": ["diffusers", "X"]}, "'upscaler' is no entry that this version knows"),
        ("tokenizer/tokenizer_config.json", {"eos_token": "<end>"}, "eos_token is '<end>', wanted </s>"),
        ("tokenizer/tokenizer_config.json", {"extra_ids": 0}, "extra_ids is 0, wanted 100"),
        ("tokenizer/added_tokens.json", {"<extra_id_0>": 5}, "'<extra_id_0>' has the id 5, wanted "),
        ("tokenizer/special_tokens_map.json", {"pad_token": {"content": "[PAD]"}}, "pad_token is '[PAD]'"),
        ("tokenizer/special_tokens_map.json", {"additional_special_tokens": ["<id>"]}, "additional_special_tokens"),
    ]
    for file, entries, _ in wrong:
        change(damaged / file, **entries)
    lines = {line.split(":")[0].strip(): line for line in refusal(damaged).splitlines()}
    assert [(file, said) for file, _, said in wrong if said not in lines[file]] == []


def test_a_token_that_t5_does_not_have_is_named(damaged: Path, refusal: Refusal) -> None:
    change(damaged / tokenizer.SETTINGS[0], added_tokens_decoder={"7": {"content": "<x>"}})
    assert "added_tokens_decoder: '<x>' has the id 7, wanted no such token" in refusal(damaged)


@pytest.mark.parametrize(
    ("file", "tensor", "said"),
    [
        ("transformer/diffusion_pytorch_model", "ofs_embedding.linear_1.weight", "is not part of this network"),
        ("vae/diffusion_pytorch_model", "loss.discriminator.weight", "is not part of the VAE"),
        ("text_encoder/model", "decoder.final_layer_norm.weight", "is not part of this network"),
    ],
)
def test_a_tensor_that_nothing_reads_is_named(
    damaged: Path, file: str, tensor: str, said: str, refusal: Refusal
) -> None:
    path = damaged / f"{file}.safetensors"
    save_file(load_file(path) | {tensor: torch.ones(2)}, path)
    assert f"{tensor} {said}" in refusal(damaged)


@pytest.mark.parametrize("equal", [True, False])
def test_a_second_embedding_must_be_the_first(damaged: Path, equal: bool, refusal: Refusal) -> None:
    """transformers keeps both where they differ, and encodes with the second."""
    path = damaged / "text_encoder/model.safetensors"
    tensors = load_file(path)
    second = tensors["shared.weight"].clone()
    second[7, 3] += 0 if equal else 1e-3
    save_file(tensors | {"encoder.embed_tokens.weight": second}, path)
    if equal:
        Checkpoint.open(damaged)
    else:
        assert "encoder.embed_tokens.weight differs from shared.weight" in refusal(damaged)


def test_weights_that_are_no_floating_point_numbers_are_named(damaged: Path, refusal: Refusal) -> None:
    path = damaged / "text_encoder/model.safetensors"
    tensors = load_file(path)
    tensors["shared.weight"] = tensors["shared.weight"].to(torch.int8)
    save_file(tensors, path)
    assert "shared.weight has the dtype int8, expected floating-point numbers" in refusal(damaged)


def test_face_networks_of_other_widths_are_named(damaged: Path, refusal: Refusal) -> None:
    path = damaged / RECOGNISER
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 256
    onnx.save(model, path)
    assert f"LFE_id_dim is 576, wanted 320, the widths of {RECOGNISER}" in refusal(damaged)


def test_an_onnx_file_with_its_weights_elsewhere_is_refused(damaged: Path, refusal: Refusal) -> None:
    path = damaged / RECOGNISER
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert f"{RECOGNISER}: has its weights in other files" in refusal(damaged)


def test_another_tokenizers_model_is_refused(damaged: Path, refusal: Refusal) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words to learn from"]), model_writer=model, vocab_size=16, minloglevel=2
    )
    (damaged / TOKENIZER).write_bytes(model.getvalue())
    assert f"{TOKENIZER}: begins with the pieces ['<unk>', '<s>', '</s>'], wanted" in refusal(damaged)
    (damaged / TOKENIZER).write_bytes(b"\0" * 100)
    assert f"{TOKENIZER}: is no SentencePiece model" in refusal(damaged)
