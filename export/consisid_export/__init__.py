"""Turns a checkpoint into a bundle, and a bundle into a model repository. Nothing here runs in a request."""
