"""Comparing what was exported with PyTorch: each module alone, and a whole denoising run."""
