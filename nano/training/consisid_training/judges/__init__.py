"""Trains the networks that judge videos, apart from the checkpoint's own."""
