"""Trains what makes the video: VAE, local facial extractor, transformer with text encoder."""
