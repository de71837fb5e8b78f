"""The text encoder's configuration; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.errors import CheckpointInvalid

_FEED_FORWARDS = ("gated-gelu", "relu")


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
        """Raises `CheckpointInvalid` naming the entry that is missing or unknown to this runtime."""
        feed_forward = config.get("feed_forward_proj", "relu")
        if feed_forward not in _FEED_FORWARDS:
            raise CheckpointInvalid(
                f"text_encoder/config.json: feed_forward_proj must be one of {', '.join(_FEED_FORWARDS)}, "
                f"got {feed_forward!r}"
            )
        try:
            return cls(
                vocabulary=config["vocab_size"],
                width=config["d_model"],
                heads=config["num_heads"],
                head_width=config["d_kv"],
                hidden=config["d_ff"],
                layers=config["num_layers"],
                buckets=config.get("relative_attention_num_buckets", 32),
                distance=config.get("relative_attention_max_distance", 128),
                eps=config.get("layer_norm_epsilon", 1e-6),
                gated=feed_forward == "gated-gelu",
            )
        except KeyError as missing:
            raise CheckpointInvalid(f"text_encoder/config.json has no entry {missing}") from None
