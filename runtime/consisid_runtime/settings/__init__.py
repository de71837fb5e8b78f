"""Settings of a command: what there is, where it comes from, and how it is printed. Here are those of `consisid serve`.

    base       what the settings of every command have in common
    kinds      types of values, and what they accept, in words
    groups     every setting of `consisid serve` with its bounds, its default and its meaning
    settings   the groups as one model, and what the door's `Limits` are by it
    resolve    the command line before the environment before a file before the default; typed errors
    text       TOML that can be given as such a file again

Needs pydantic-settings, of the extra `door`. Defaults of the door's bounds are those of `door.limits`.
"""
