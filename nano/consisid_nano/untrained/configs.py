"""Configuration files of the untrained checkpoints: the official entries with small sizes."""

from __future__ import annotations

from typing import Any, Literal, get_args

CLIP_WIDTH = 32
CLIP_OUT = 64
ARCFACE_OUT = 512

TRANSFORMER: dict[str, Any] = {
    "_class_name": "ConsisIDTransformer3DModel",
    "LFE_depth": 10,
    "LFE_dim_head": 16,
    "LFE_ff_mult": 4,
    "LFE_id_dim": ARCFACE_OUT + CLIP_OUT,
    "LFE_num_heads": 2,
    "LFE_num_id_token": 5,
    "LFE_num_querie": 32,
    "LFE_num_scale": 5,
    "LFE_output_dim": 128,  # two thirds of the width, as in the reference
    "LFE_vit_dim": CLIP_WIDTH,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 64,
    "cross_attn_dim_head": 64,
    "cross_attn_interval": 2,
    "cross_attn_num_heads": 2,
    "dropout": 0.0,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 32,
    "is_kps": False,
    "is_train_face": True,
    "local_face_scale": 1.0,
    "max_text_seq_length": 64,
    "norm_elementwise_affine": True,
    "norm_eps": 1e-05,
    "num_attention_heads": 3,
    "num_layers": 4,
    "out_channels": 16,
    "patch_size": 2,
    "sample_frames": 17,
    "sample_height": 16,
    "sample_width": 24,
    "spatial_interpolation_scale": 1.875,
    "temporal_compression_ratio": 4,
    "temporal_interpolation_scale": 1.0,
    "text_embed_dim": 32,
    "time_embed_dim": 64,
    "timestep_activation_fn": "silu",
    "use_learned_positional_embeddings": True,
    "use_rotary_positional_embeddings": True,
}

VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKLCogVideoX",
    "act_fn": "silu",
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["CogVideoXDownBlock3D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_height": 128,
    "sample_width": 192,
    "scaling_factor": 0.7,
    "temporal_compression_ratio": 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}

TEXT_ENCODER: dict[str, Any] = {
    "architectures": ["T5EncoderModel"],
    "d_ff": 64,
    "d_kv": 16,
    "d_model": 32,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_heads": 2,
    "num_layers": 2,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
}

SCHEDULER: dict[str, Any] = {
    "_class_name": "CogVideoXDPMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
    "trained_betas": None,
}

MODEL_INDEX: dict[str, Any] = {
    "_class_name": "ConsisIDPipeline",
    "scheduler": ["diffusers", "CogVideoXDPMScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "ConsisIDTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLCogVideoX"],
}

Size = Literal["small", "mid"]
SIZES: tuple[Size, ...] = get_args(Size)

CHANGES: dict[Size, dict[str, dict[str, Any]]] = {
    "small": {"transformer": {}, "vae": {}, "text_encoder": {}},
    "mid": {
        "transformer": {
            "LFE_dim_head": 64,
            "LFE_num_heads": 6,
            "LFE_output_dim": 384,
            "cross_attn_dim_head": 128,
            "cross_attn_num_heads": 3,
            "max_text_seq_length": 226,
            "num_attention_heads": 9,
            "num_layers": 6,
            "sample_height": 24,
            "sample_width": 28,
            "text_embed_dim": 256,
            "time_embed_dim": 256,
        },
        "vae": {
            "block_out_channels": [32, 32, 64, 128],
            "layers_per_block": 2,
            "norm_num_groups": 8,
            "sample_height": 192,
            "sample_width": 224,
        },
        "text_encoder": {"d_ff": 512, "d_kv": 64, "d_model": 256, "num_heads": 4, "num_layers": 4},
    },
}
"""What each size changes. "small" makes 17 frames of 128×192; "mid" has a step of 1,066 tokens and width 576, and makes
17 frames of 192×224: large enough that arithmetic, not calls, takes the time, as at ConsisID's size."""


def configs(size: Size) -> dict[str, dict[str, Any]]:
    """Component → its configuration file, but for the text encoder's vocabulary."""
    base = {"transformer": TRANSFORMER, "vae": VAE, "text_encoder": TEXT_ENCODER}
    return {component: entries | CHANGES[size][component] for component, entries in base.items()}
