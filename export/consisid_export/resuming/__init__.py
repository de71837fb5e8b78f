"""Keeps what an interrupted export had finished, and puts a finished bundle into its place.

Nothing here knows a module or a network.
"""
