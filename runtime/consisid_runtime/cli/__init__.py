"""The `consisid` command: entry point, the runtime's own sub-commands, flags and output. No logic of a request."""
