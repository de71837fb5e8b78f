"""The body of a webhook."""

from __future__ import annotations

import json

from consisid_gateway.jobs.job import Job


def announcement(job: Job) -> str:
    """As OpenAI's webhooks of videos: what happened, and the id to retrieve it by; the video itself needs a key."""
    moment = job.completed_at or job.created_at
    told = {"id": f"evt_{job.id}", "object": "event", "created_at": int(moment), "type": f"video.{job.status}"}
    return json.dumps(told | {"data": {"id": job.id}})
