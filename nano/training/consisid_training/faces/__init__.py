"""Trains the face networks: detector, aligner, parser, recognisers, CLIP tower. Imports `data` and `loop`."""
