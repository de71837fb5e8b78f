"""`consisid demo`: everything once, from the trained checkpoint to a video."""
