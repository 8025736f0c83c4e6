"""A speech service whose requests take turns on the GPUs of this machine.

uvicorn web_service:app
"""

import time
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from gpuarbiter import current_lease, torch_memory
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute

app = FastAPI()
app.add_middleware(
    GpuLeaseMiddleware,
    routes=[
        GpuRoute("ASR", "/transcribe", methods=["POST"], memory="6GiB", max_wait="2s"),
        GpuRoute("TTS", "/speak", memory="4GiB", max_wait="2s"),
        GpuRoute("SEMANTIC_REPAIR", "/repair", methods=["POST"], busy_policy="SKIP", max_wait="300ms"),
    ],
)


@app.get("/health")
async def health() -> str:
    """Named by no route: it needs no GPU, and never waits for one."""
    return "well"


@app.post("/transcribe")
async def transcribe(request: Request) -> dict[str, str]:
    """The lease is on the request, and `current_lease()` anywhere below."""
    audio = await request.body()
    text = await run_in_threadpool(recognise, audio)
    return {"text": text, "gpu": request.state.gpu_lease.visible_devices}


@app.get("/speak")
def speak(text: str) -> StreamingResponse:
    """The GPU is given back with the last piece of the stream, or when the client goes."""
    return StreamingResponse(voice(text), media_type="audio/wav")


@app.post("/repair")
def repair(body: dict[str, Any]) -> dict[str, str]:
    """Plain functions run in a thread, under the lease all the same."""
    return {"text": str(body["text"]).capitalize()}


def recognise(audio: bytes) -> str:
    """Stands in for your model."""
    with torch_memory():  # the arbiter learns what it really took
        time.sleep(0.02)
        return f"{len(audio)} bytes, heard on {current_lease().visible_devices}"


def voice(text: str) -> Iterator[bytes]:
    """Stands in for your model."""
    for word in text.split():
        current_lease().check()  # raises where the GPU was taken away meanwhile
        time.sleep(0.02)
        yield word.encode()
