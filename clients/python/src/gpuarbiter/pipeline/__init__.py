"""Jobs through stages, each stage under a lease of its own; the results of a session come out in order.

    from gpuarbiter import AsyncArbiter
    from gpuarbiter.pipeline import Pipeline, Stage

    stages = [Stage("ASR", transcribe), Stage("NMT", translate), Stage("TTS", speak)]
    async with AsyncArbiter() as arbiter, Pipeline(arbiter, stages) as pipeline:
        session = pipeline.session("call-7", on_result=send)
        async for audio in microphone:
            await session.submit(audio)
        await session.end()

Law: what is decided (who runs next, what a failure means, whose result is next) is decided in `_scheduler` and
`_order`, without a clock and without asyncio; `_engine` and what it is made of only do it.
"""

from gpuarbiter.pipeline._pipeline import Pipeline as Pipeline
from gpuarbiter.pipeline._session import Job as Job
from gpuarbiter.pipeline._session import PipelineSession as PipelineSession
from gpuarbiter.pipeline._stage import Stage as Stage
from gpuarbiter.pipeline._stage import StageRun as StageRun
from gpuarbiter.pipeline._values import Cause as Cause
from gpuarbiter.pipeline._values import JobCancelled as JobCancelled
from gpuarbiter.pipeline._values import JobResult as JobResult
from gpuarbiter.pipeline._values import PipelineClosed as PipelineClosed
from gpuarbiter.pipeline._values import PipelineStatistics as PipelineStatistics
from gpuarbiter.pipeline._values import SkipJob as SkipJob
from gpuarbiter.pipeline._values import StageResult as StageResult
from gpuarbiter.pipeline._values import StageStatistics as StageStatistics
from gpuarbiter.pipeline._values import StageTimeout as StageTimeout
from gpuarbiter.pipeline._values import State as State
