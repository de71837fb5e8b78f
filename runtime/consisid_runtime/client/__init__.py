"""The clients of a server, with their gRPC and HTTP transports.

Everything is written once, for asyncio; `Client` runs it in a thread. Needs NumPy, tritonclient and h11 only: nothing
in this folder imports torch, an engine, PIL or PyAV.
"""
