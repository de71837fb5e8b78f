"""Reads users' files within bounds and writes files and folders atomically. Independent of videos and bundles."""
