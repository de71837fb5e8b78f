"""Predicts seconds and memory of every stage on a GPU from counted work and ceilings, published or recorded on one."""
