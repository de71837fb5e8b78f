"""The benchmark suites, a file each with its variants and cases in others, and the tuner of tiles."""
