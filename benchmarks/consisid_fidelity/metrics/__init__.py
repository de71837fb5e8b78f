"""Metrics and statistics computed from frames and features, without networks."""
