"""Which weights lie on the GPU while which module runs: counted needs, the plan made of them, and what carries it out.

The plan is a pure function and imports no torch. Nothing here knows a stage or a bundle's files.
"""
