"""The door: the one process that callers of a served bundle talk to, over HTTP and gRPC; Triton server is behind it.

It admits, queues, authenticates, limits, counts and cancels; the models compute. What it forwards it has built itself
from checked parts. Each protocol has its folder; what both share is beside them:

    limits        every bound, in one place
    request       what was asked for, checked against the models' signatures
    description   what the public models are, from their signatures
    proxies       whose word is taken for who calls
    access        the token, and the certificate of the door's own TLS
    budget        bytes of requests in memory, reserved before they are read
    consent       asks the operator's function before a request waits
    queue         who runs next
    dispatch      one request from its admission to its answer, or to its end where the caller leaves
    signing       content credentials in the video of an answer
    server        Triton server's gRPC; starts it again where it died, and with another bundle
    records       counters and log lines
    parts         these together
    door          all of it, as a context manager

Needs the extra `door`. Nothing here imports torch or a model.
"""
