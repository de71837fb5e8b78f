"""The client of a server, with its gRPC and HTTP transports.

Needs NumPy and tritonclient only: nothing in this folder imports torch, an engine, PIL or PyAV.
"""
