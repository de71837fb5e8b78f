"""The benchmark suites (`export`, `kernels`, `pipeline`) with their variants and cases, and the tuner of tiles."""
