"""Calling a server: the client, and its gRPC and HTTP transports.

Imports neither torch nor an engine; all that a caller installs is NumPy and tritonclient.
"""
