"""Experiments with the trained nano checkpoint: ablations, known damage, and the gate for other bundles.

`variants` lists what is generated, `generation` and `measure` process one video, `worker` one case, `run` all cases;
`experiments` summarises the results into findings, `record` stores them, `report` and `plots` show them.
"""
