"""Triton-language GPU kernels, and `reference`, their specification in plain PyTorch. Knows nothing of bundles."""
