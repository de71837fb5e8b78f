"""Measures how faithful videos are to the person, the prompt and a reference.

`metrics/` computes figures without networks, `judges/` holds the networks, the modules here score collections of videos
and compare runs, `nano/` holds the experiments with the trained nano checkpoint. Imports go in this order:
metrics ← judges ← modules here ← nano; `cli` is at the top. Importing the package loads nothing heavy.
"""
