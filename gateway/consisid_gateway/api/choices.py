"""What a form for a request may offer."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from consisid_gateway.access.caller import Scope
from consisid_gateway.api.dependencies import CallerOf, PartsOf
from consisid_gateway.api.document import errors
from consisid_gateway.api.threads import read
from consisid_gateway.jobs import workers
from consisid_runtime.options import Options
from consisid_runtime.tiers import GUIDANCE, TIERS

router = APIRouter(tags=["videos"])


class Tier(BaseModel):
    """One way of making a video."""

    name: str
    meaning: str
    steps: int = Field(description="where a request names none")


class Choices(BaseModel):
    """Of this gateway."""

    object: Literal["options"] = "options"
    model: str
    tiers: list[Tier] = Field(description="that there are; which of them a server has, its bundle decides")
    defaults: dict[str, Any] = Field(description="option → value; null where the checkpoint or the tier decides")
    upload_bytes: int = Field(description="of a portrait, at most")
    workers: int = Field(description="that are ready; without one, videos wait")


@router.get(
    "/v1/options",
    operation_id="list_options",
    summary="What a request may choose, and whether workers are ready",
    responses=errors(),
)
async def choices(caller: CallerOf, parts: PartsOf) -> Choices:
    caller.require(Scope.READ)
    return Choices(
        model=parts.model,
        tiers=[Tier(name=tier.name, meaning=tier.meaning, steps=tier.steps) for tier in TIERS.values()],
        defaults={field.name: getattr(Options(), field.name) for field in fields(Options)} | {"guidance": GUIDANCE},
        upload_bytes=parts.upload_bytes,
        workers=await read(parts.database, workers.ready),
    )
