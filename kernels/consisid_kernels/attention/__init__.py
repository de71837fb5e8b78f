"""Attention and what prepares its inputs: joint and face attention; q, k and v in 16 and in 8 bits."""
