"""Shared by all benchmarks: harness, records, the digest of their source files, the environment, plots. No suites."""
