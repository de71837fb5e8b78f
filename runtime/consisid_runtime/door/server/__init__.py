"""Triton server behind a door: its starts, its calls, and what it serves. Nothing here knows of callers."""
