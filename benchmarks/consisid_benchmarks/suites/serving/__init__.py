"""The suite `serving`: load on a real server that it starts, and what a request costs beside the pipeline itself.

`arrivals` and `load` know no server; `requests` and `processes` do; the other files are the parts of the suite.
"""
