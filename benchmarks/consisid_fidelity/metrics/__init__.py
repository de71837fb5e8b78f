"""Figures computed from frames and features, without a network."""
