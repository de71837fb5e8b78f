"""The model `consisid_stream`: orders the parts of requests on one device, and tells each how far it is.

The stages are the pipeline's own, in this process or in models of their own; nothing here computes.
"""
