"""Measures ConsisID, next to what a user would otherwise run."""
