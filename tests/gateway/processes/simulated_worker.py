"""A worker process with a simulated maker: python simulated_worker.py DATABASE STORE [--step-seconds S] …

With `--forks` instead, it makes a process for each line of its input, a JSON list of such arguments, and prints its
number: one that has imported everything is there at once.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import av  # noqa: F401  what a worker imports later
import PIL.JpegImagePlugin  # noqa: F401
import psycopg  # noqa: F401
from simulated import SimulatedMaker

from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.job import Job
from consisid_gateway.jobs.queue import POLLING_SECONDS
from consisid_gateway.objects.store import Store
from consisid_gateway.worker.worker import Worker, WorkerConfig


def announcement(job: Job) -> str:
    return json.dumps({"type": f"video.{job.status}", "data": {"id": job.id}})


def work(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("store")
    parser.add_argument("--step-seconds", type=float, default=0.02)
    parser.add_argument("--part-steps", type=int, default=5)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--name", default="simulated")
    parser.add_argument("--webhook-secret")
    parser.add_argument("--polling-seconds", type=float, default=POLLING_SECONDS)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    over = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: over.set())
    secret = None if args.webhook_secret is None else args.webhook_secret.encode()
    settings = WorkerConfig(webhook_secret=secret, private_webhooks=True, polling_seconds=args.polling_seconds)
    maker = SimulatedMaker(args.step_seconds, args.part_steps, args.log)
    worker = Worker(Database(args.database, pool=8), Store(args.store), maker, announcement, settings, args.name)
    worker.start()
    over.wait()
    worker.stop()


def serve() -> None:
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        if not (child := os.fork()):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            work(json.loads(line))
            return
        print(child, flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--forks"] else work(sys.argv[1:])
