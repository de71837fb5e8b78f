"""Kernels of attention: joint and face attention, the preparation of q, k and v, and the choice of a form."""
