"""`text_encoder/config.json`, parsed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.models.configs.entries import LARGEST, Entries

FILE = "text_encoder/config.json"

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")
_OF_THE_DECODER = ("decoder_start_token_id", "num_decoder_layers", "scale_decoder_outputs", "use_cache")
_OF_TRAINING = ("classifier_dropout", "gradient_checkpointing", "initializer_factor", "initializer_range")
_OF_TEXT_OUTPUT = (
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "task_specific_params",
)
_OF_THE_TOKENIZER = ("bos_token_id", "eos_token_id", "n_positions", "pad_token_id", "tokenizer_class")
"""The encoder is given ids, and has relative positions of any length."""
_OF_THE_FILE = ("architectures", "dtype", "output_past", "torch_dtype", "transformers_version")
"""Who wrote it, and the weights' dtype, which the weights tell."""
_TIED = ("is_encoder_decoder", "tie_word_embeddings")
"""transformers always ties the encoder's embedding; weights with two different ones are refused."""


@dataclass(frozen=True, slots=True)
class T5Config:
    """What the network needs of `text_encoder/config.json`.

    Attributes:
        vocabulary: rows of the embedding.
        width, heads, head_width, hidden, layers: sizes; heads·head_width need not be width.
        buckets, distance: of the relative position bias; distances beyond the last share its bucket.
        gated: feed-forward "gated-gelu" (T5 v1.1) or "relu" (T5).
    """

    vocabulary: int
    width: int
    heads: int
    head_width: int
    hidden: int
    layers: int
    buckets: int
    distance: int
    eps: float
    gated: bool

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> T5Config:
        """An entry that is not there has transformers' default.

        Raises `CheckpointInvalid` naming every entry that is wrong or unknown to this runtime.
        """
        at = Entries(FILE, config)
        at.unread(*_OF_THE_DECODER, *_OF_TRAINING, *_OF_TEXT_OUTPUT, *_OF_THE_TOKENIZER, *_OF_THE_FILE, *_TIED)
        at.number("dropout_rate", 0.1, 0, 1)  # of training
        at.choice("model_type", "t5", ("t5",))
        at.choice("is_decoder", False, (False,))
        found = cls(
            vocabulary=at.whole("vocab_size", 32128, high=1 << 24),
            width=at.whole("d_model", 512),
            heads=at.whole("num_heads", 8),
            head_width=at.whole("d_kv", 64),
            hidden=at.whole("d_ff", 2048),
            layers=at.whole("num_layers", 6, high=1024),
            buckets=at.whole("relative_attention_num_buckets", 32, low=4),
            distance=at.whole("relative_attention_max_distance", 128),
            eps=at.number("layer_norm_epsilon", 1e-6, 0, 1),
            gated=_gated(at),
        )
        inner, nearest = found.heads * found.head_width, found.buckets // 4
        at.require("num_heads", found.heads, inner <= LARGEST, f"× d_kv at most {LARGEST}")
        above = f"above a quarter of relative_attention_num_buckets ({nearest})"
        at.require("relative_attention_max_distance", found.distance, found.distance > nearest, above)
        for name, own, value in (
            ("hidden_size", "d_model", found.width),
            ("num_attention_heads", "num_heads", found.heads),
            ("num_hidden_layers", "num_layers", found.layers),
            ("head_dim", "d_kv", found.head_width),
        ):
            # transformers' general names have precedence over T5's own.
            at.same(name, own, value)
        at.done()
        return found


def _gated(at: Entries) -> bool:
    """Whether the feed-forward is gated.

    transformers derives gate and activation from `feed_forward_proj`, and lets entries of their own replace each.
    """
    written = at.choice("feed_forward_proj", "relu", ("gated-gelu", "relu"))
    gated = at.flag("is_gated_act", written == "gated-gelu")
    activation = at.choice("dense_act_fn", _TANH_GELU[0] if written == "gated-gelu" else written, (*_TANH_GELU, "relu"))
    wanted = f"{' or '.join(_TANH_GELU) if gated else 'relu'}, as is_gated_act is {str(gated).lower()}"
    at.require("dense_act_fn", activation, (activation in _TANH_GELU) == gated, wanted)
    return gated
