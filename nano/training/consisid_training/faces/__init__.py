"""Trains the face networks: detector, aligner, parser, recognisers and the CLIP tower."""
