"""The five stages of a request, and what only they need: `face`, `text`, `encode`, `denoise` and `decode`.

A stage takes a bundle's modules and a plan; it does not know who calls it, a pipeline or a server.
"""
