"""Settings of `consisid gateway` and `consisid worker`; where they come from: `consisid_runtime.settings`.

kinds      types of values, and what they accept, in words
groups     every setting with its bounds, its default and its meaning
settings   those of each command as one model
storage    the database and the objects that they name
"""
