"""The text encoder against transformers' T5EncoderModel, random weights."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.t5 import T5Config
from consisid_runtime.models.t5 import T5Encoder, position_buckets

# heads·d_kv is not d_model, and the distances reach the shared last bucket
TINY: dict[str, Any] = {"vocab_size": 50, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_heads": 3, "num_layers": 3}
TINY |= {"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
LENGTH = 19
TIED = "encoder.embed_tokens.weight"


def reference(**changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    model: Any = transformers.T5EncoderModel(transformers.T5Config(**(TINY | changes)))
    model.eval().requires_grad_(False)
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    return model


def ours(model: Any) -> T5Encoder:
    encoder = T5Encoder(T5Config.from_dict(model.config.to_dict()))
    encoder.load_state_dict({name: t for name, t in model.state_dict().items() if name != TIED})
    return encoder.eval().requires_grad_(False)


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_states(feed_forward: str) -> None:
    model = reference(feed_forward_proj=feed_forward)
    ids = torch.randint(0, 50, (2, LENGTH))
    assert error(ours(model)(ids), model(ids)[0]) < 1e-6


def test_buckets_at_full_size() -> None:
    from transformers.models.t5 import modeling_t5

    reference_buckets: Any = modeling_t5.T5Attention._relative_position_bucket
    offset = torch.arange(300)[None] - torch.arange(300)[:, None]
    wanted = reference_buckets(offset, num_buckets=32, max_distance=128)
    assert torch.equal(position_buckets(300, 32, 128), wanted)


def test_keys_are_the_checkpoints() -> None:
    # the embedding's second name is the same tensor; files may leave it out
    assert T5Encoder(T5Config.from_dict(TINY)).state_dict().keys() == reference().state_dict().keys() - {TIED}


# torch.onnx itself still uses torch's deprecated LeafSpec
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_onnx_batch_stays_dynamic(tmp_path: Path) -> None:
    model = ours(reference())
    torch.onnx.export(
        model,
        (torch.randint(0, 50, (2, LENGTH)),),
        tmp_path / "t5.onnx",
        dynamo=True,
        opset_version=23,
        verbose=False,
        input_names=["token_ids"],
        output_names=["text_states"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    dims = onnx.load(tmp_path / "t5.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [bool(dim.dim_param) for dim in dims] == [True, False]
    session = ort.InferenceSession(tmp_path / "t5.onnx", providers=["CPUExecutionProvider"])
    ids = torch.randint(0, 50, (1, LENGTH))
    (states,) = session.run(["text_states"], {"token_ids": ids.numpy()})
    assert error(torch.from_numpy(states), model(ids)) < 1e-5


def test_unknown_feed_forward_is_named() -> None:
    with pytest.raises(CheckpointInvalid, match="gated-silu"):
        T5Config.from_dict(TINY | {"feed_forward_proj": "gated-silu"})


def test_missing_entries_have_the_references_defaults() -> None:
    import transformers

    reference = transformers.T5Config().to_dict()
    found = T5Config.from_dict({})
    assert (found.head_width, found.gated) == (reference["d_kv"], reference["is_gated_act"]) == (64, False)
    assert found == T5Config.from_dict(reference)
