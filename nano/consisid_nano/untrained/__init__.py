"""Writes the untrained checkpoint: ConsisID's architecture, 128×192, with random weights.

The face detector, aligner and parser are built by hand from a fixed prior, so that faces are found without training.
"""
