"""Lean PyTorch definitions of ConsisID's networks, with the checkpoint's own parameter names."""
