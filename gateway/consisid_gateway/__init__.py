"""Durable jobs over HTTP: `/v1/videos`, workers that drive a server each, and a page to try it.

    errors      what only this package raises
    addresses   URLs that callers choose for the gateway to call
    settings    of `consisid gateway`, `consisid worker` and `consisid up`
    jobs/       what is stored of a job, and the only statements that change it
    objects/    portraits, checkpoints and videos: a folder, or S3
    worker/     takes jobs from the queue, has a server make their videos, takes over from workers that died
    api/        the HTTP interface
    page/       static files of the page

Above the runtime's client alone: nothing here imports torch, and a worker reaches its server as every client does. The
queue and the takeover are DBOS's; SQLite serves one machine, PostgreSQL several, by the same statements.
"""
