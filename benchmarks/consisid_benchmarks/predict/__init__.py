"""Predicts seconds and memory of every stage on a GPU from counted work and published ceilings. Nothing is measured."""
