"""Draws the training data: clips, and pictures for the face networks. Imports nothing else of this package."""
