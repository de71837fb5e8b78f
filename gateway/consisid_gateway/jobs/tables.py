"""The schema. Times are seconds since 1970 by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA = 1
METADATA = sa.MetaData()
_ID = sa.String(64)
_KEY = sa.String(128)
"""Of an object in the store."""

schema_version = sa.Table("consisid_schema", METADATA, sa.Column("version", sa.Integer, primary_key=True))

identity = sa.Table(
    "consisid_identity",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("marked", sa.Boolean, nullable=False),  # an object store has it as its mark
)

jobs = sa.Table(
    "consisid_jobs",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("tenant", _ID, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("urgent", sa.Boolean, nullable=False),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),  # JSON of `Options.to_mapping`
    sa.Column("portrait", _KEY, nullable=False),
    sa.Column("portrait_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("character", _ID),
    sa.Column("remixed_from", _ID),
    sa.Column("webhook", sa.Text),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    # Of the worker that owns it. `epoch` grows with every owner: statements of a former one change nothing.
    sa.Column("worker", _ID),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),  # ends of a server while it made this video
    sa.Column("stage", sa.String(16)),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("seconds_left", sa.Double),
    sa.Column("checkpoint", _KEY),
    sa.Column("video", _KEY),
    sa.Column("video_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("thumbnail", _KEY),
    sa.Column("spritesheet", _KEY),
    sa.Column("info", sa.Text),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("gone", sa.Boolean, nullable=False, default=False),  # its objects were deleted
    sa.Column("trace", sa.String(128)),  # W3C traceparent of the request that created it
    sa.Index("consisid_jobs_of_tenant", "tenant", "created_at", "id"),
    sa.Index("consisid_jobs_by_status", "status", "urgent", "created_at"),
    sa.Index("consisid_jobs_by_expiry", "expires_at"),
    # What a limited key's tenant has, without a look at any job.
    sa.Index("consisid_jobs_open", "tenant", "status"),
    sa.Index("consisid_jobs_stored", "tenant", "gone", "video_bytes", "portrait_bytes"),
)

idempotency = sa.Table(
    "consisid_idempotency",
    METADATA,
    sa.Column("tenant", _ID, primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),  # of the request
    sa.Column("job", _ID, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

characters = sa.Table(
    "consisid_characters",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("tenant", _ID, nullable=False, index=True),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("portrait", _KEY, nullable=False),
    sa.Column("portrait_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("status", sa.String(16), nullable=False),  # pending, ready, refused
    sa.Column("face", sa.Text),  # JSON of what a server read
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
)

events = sa.Table(
    "consisid_events",
    METADATA,
    sa.Column("job", _ID, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("preview", sa.LargeBinary),
)

workers = sa.Table(
    "consisid_workers",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("beat_at", sa.Double, nullable=False),
    sa.Column("steady_since", sa.Double, nullable=False),  # it has missed no heartbeat
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ready", sa.Boolean, nullable=False, default=False),
)

leases = sa.Table(
    "consisid_leases",
    METADATA,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("worker", _ID, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)

keys = sa.Table(
    "consisid_keys",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("tenant", _ID, nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("revoked_at", sa.Double),
)

windows = sa.Table(
    "consisid_windows",
    METADATA,
    sa.Column("key", _ID, primary_key=True),
    sa.Column("window", sa.BigInteger, primary_key=True),  # the minute
    sa.Column("requests", sa.Integer, nullable=False),
)

deliveries = sa.Table(
    "consisid_deliveries",
    METADATA,
    sa.Column("job", _ID, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Double),  # None: delivered, or given up
    sa.Column("delivered_at", sa.Double),
    sa.Column("failed_at", sa.Double),
    sa.Index("consisid_deliveries_due", "next_at"),
)

orphans = sa.Table(
    "consisid_orphans",
    METADATA,
    sa.Column("prefix", _KEY, primary_key=True),  # of objects to be deleted
)
