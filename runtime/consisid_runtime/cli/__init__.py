"""The command `consisid`: its entry point, the runtime's own sub-commands, their flags and their output.

Commands call the Python API and print; how a request is processed is in the other folders.
"""
