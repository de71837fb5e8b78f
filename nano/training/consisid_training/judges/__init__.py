"""Trains the networks that judge videos, separately from the checkpoint's own. Nothing else imports this folder."""
