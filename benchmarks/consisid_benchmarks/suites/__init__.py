"""The benchmark suites, a file or a folder each, with variants and cases in others, and the tuner of tiles."""
