"""What is stored of jobs, and the only statements that change it.

    database    the engine of SQLite or PostgreSQL, its transactions, its clock
    tables      the schema
    job         one job as its callers see it
    creation    a job comes into being: its row and its place in the queue in one transaction
    running     what the worker that owns a job writes; the fence that stops one that owns it no longer
    reading     retrieve, list, count
    ending      cancel, delete, expire
    characters  portraits with a name, whose face a worker reads once
    queue       where jobs and characters wait
    events      what streams tell of a job
    workers     heartbeats, and whose jobs are to be taken over

No HTTP and no objects here. Every function takes a connection inside of a transaction of its caller.
"""
