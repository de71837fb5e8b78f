"""Trains the video model: VAE, local facial extractor, transformer, text encoder. Imports no `judges`."""
