"""A checkpoint's configuration files, parsed and checked; the networks and stages import them. Imports no torch."""
