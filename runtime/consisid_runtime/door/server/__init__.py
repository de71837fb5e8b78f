"""Triton server behind a door: its starts, its calls, and which bundle it serves."""
