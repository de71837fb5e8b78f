"""Kernels of attention: joint and face attention, and the preparation of q, k and v in 16 and 8 bits."""
