"""Writing a bundle, module by module and resumable, with its manifest. Uses every other folder of the exporter.

`export` is the entry, `builders` the table of what `--engine` offers, `sources` what decides whether a finished module
is kept. How a network is traced, quantised, compared or built into an engine does not belong here.
"""
