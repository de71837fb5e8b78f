"""Experiments with the trained nano checkpoint: ablations, known damage, the gate for other bundles."""
