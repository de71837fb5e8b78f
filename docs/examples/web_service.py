"""A web service of your own before ConsisID servers: a portrait and a prompt in, an MP4 out.

pip install consisid-runtime fastapi python-multipart uvicorn
CONSISID_SERVERS=grpc://127.0.0.1:8001 uvicorn --app-dir docs/examples web_service:app --port 8080
curl -F portrait=@portrait.jpg -F prompt='a man reading by the sea' -F seed=7 http://127.0.0.1:8080/videos -o out.mp4
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import JSONResponse

from consisid_runtime import AsyncClient, Options
from consisid_runtime.errors import Busy, ConsisIDError

SERVERS = os.environ.get("CONSISID_SERVERS", "grpc://127.0.0.1:8001").split(",")

Result = TypeVar("Result")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for each worker process, made after its start; closing it ends what still runs."""
    async with AsyncClient(SERVERS, timeout=600) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/videos")
async def make_video(
    request: Request,
    portrait: UploadFile,
    prompt: Annotated[str, Form()],
    seed: Annotated[int, Form()] = 0,
    steps: Annotated[int | None, Form()] = None,
) -> Response:
    options = Options(seed=seed, steps=steps)
    client: AsyncClient = request.app.state.client
    video = await unless_left(request, client.generate(await portrait.read(), prompt, options))
    return Response(video.mp4, media_type="video/mp4", headers={"X-Seed": str(seed)})


@app.get("/ready")
async def ready(request: Request) -> Response:
    return Response(status_code=200 if await request.app.state.client.ready() else 503)


@app.exception_handler(ConsisIDError)
async def refuse(request: Request, error: ConsisIDError) -> JSONResponse:
    """The error's own status: what is wrong with the request is the caller's to see, and when to come back."""
    headers = {"Retry-After": f"{error.retry_after:.0f}"} if isinstance(error, Busy) and error.retry_after else {}
    return JSONResponse({"code": error.code, "message": str(error)}, error.http, headers)


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns. A caller who disconnects cancels it, and with it the request at the server."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the caller left")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
