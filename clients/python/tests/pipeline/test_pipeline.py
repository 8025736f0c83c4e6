"""A pipeline on asyncio, in virtual time, with leases of a stand-in: figures are exact."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from fakes.lease_source import FakeLease, LeaseSource
from fakes.virtual_loop import run_virtually
from gpuarbiter import FallbackToCpu, LeaseLost, QueueFull, Skipped, current_lease
from gpuarbiter.pipeline import (
    JobCancelled,
    JobResult,
    Pipeline,
    PipelineClosed,
    SkipJob,
    Stage,
    StageResult,
    StageRun,
    StageTimeout,
)
from gpuarbiter.pipeline._engine import Engine
from gpuarbiter.pipeline._places import Places


def now() -> float:
    return asyncio.get_running_loop().time()


def taking(seconds: float, log: list[Any] | None = None) -> Callable[[Any, StageRun], Any]:
    """Work that takes so long, and adds its stage's name to what it is given."""

    async def work(value: str, run: StageRun) -> str:
        began = now()
        await asyncio.sleep(seconds)
        if log is not None:
            log.append((run.stage, run.session_id, run.utterance_index, began, now()))
        return f"{value}>{run.stage}"

    return work


def raising(error: BaseException) -> Callable[[Any, StageRun], Any]:
    async def work(_value: str, _run: StageRun) -> str:
        raise error

    return work


def test_stages_of_different_jobs_overlap():
    async def main() -> None:
        log: list[Any] = []
        stages = [Stage("ASR", taking(2, log), concurrency=1), Stage("TTS", taking(2, log), concurrency=1)]
        async with Pipeline(LeaseSource(2), stages) as pipeline:
            session = pipeline.session("s")
            jobs = [await session.submit(f"u{number}") for number in range(3)]
            assert [job.state for job in jobs] == ["running", "pending", "pending"]
            results = [await job for job in jobs]
        assert [(result.value, result.state) for result in results] == [(f"u{n}>ASR>TTS", "done") for n in range(3)]
        assert now() == 8
        assert sorted(log) == [("ASR", "s", n, 2.0 * n, 2.0 * n + 2) for n in range(3)] + [
            ("TTS", "s", n, 2.0 * n + 2, 2.0 * n + 4) for n in range(3)
        ]

    run_virtually(main())


def test_where_leases_cost_nothing_the_gpus_are_never_idle():
    async def main() -> None:
        dice = random.Random(5)
        between = {"ASR": (80, 150), "SEMANTIC_REPAIR": (40, 80), "NMT": (30, 60), "TTS": (80, 150)}
        total = 0.0

        async def work(value: dict[str, float], run: StageRun) -> dict[str, float]:
            await asyncio.sleep(value[run.stage])
            return value

        async with Pipeline(LeaseSource(2), [Stage(name, work) for name in between], max_in_flight=16) as pipeline:
            sessions = [pipeline.session(f"call-{number}") for number in range(8)]
            for number in range(200):
                times = {stage: dice.uniform(*limits) for stage, limits in between.items()}
                total += sum(times.values())
                await sessions[number % 8].submit(times)
        # All but the very end, when one utterance is left.
        assert total / 2 <= now() <= total / 2 * 1.01

    run_virtually(main())


def test_each_run_has_a_lease_that_says_whose_it_is():
    async def work(value: Any, run: StageRun) -> Any:
        assert run.lease is not None
        assert run.lease is current_lease()
        assert run.lease.task_type == "LLM"
        assert run.job_id == "call-7/4"
        return value

    async def main() -> None:
        source = LeaseSource()
        stages = [
            Stage("REPAIR", work, task_type="LLM", lease={"memory": "2GiB", "priority": 20}),
            Stage("NMT", work, task_type="LLM", sequenced=False),
        ]
        async with Pipeline(source, stages) as pipeline, pipeline.session("call-7") as session:
            assert session.session_id == "call-7"
            result = await (await session.submit("text", utterance_index=4))
        (repair, options), (nmt, plain) = source.asked
        assert (repair, nmt, result.value) == ("LLM", "LLM", "text")
        assert (options["memory"], options["priority"]) == ("2GiB", 20)
        assert "sequence" not in plain
        group, index = options["sequence"] or ("", 0)
        assert group.endswith("/REPAIR/call-7")
        assert index == 4
        context = options["context"]
        assert context is not None
        assert (context.job_id, context.session_id, context.utterance_index, context.stage) == (
            "call-7/4",
            "call-7",
            4,
            "REPAIR",
        )
        assert [report and report.result for report in source.reports] == ["OK", "OK"]

    run_virtually(main())


def test_work_and_callbacks_run_where_their_job_was_submitted_and_their_session_opened():
    span: ContextVar[str] = ContextVar("span", default="none")
    seen: list[str] = []

    async def work(_value: str, run: StageRun) -> None:
        seen.append(f"{run.stage} {run.utterance_index} in {span.get()}")
        await asyncio.sleep(1)
        raise ValueError

    async def main() -> None:
        stages = [Stage(name, work, concurrency=1, on_failure="skip") for name in ("ASR", "NMT")]
        told = lambda result: seen.append(f"{result.stage} {result.utterance_index} told in {span.get()}")  # noqa: E731
        async with Pipeline(LeaseSource(), stages, on_failure=told) as pipeline:
            span.set("session")
            session = pipeline.session("s", on_result=lambda r: seen.append(f"{r.utterance_index} out in {span.get()}"))
            for number in range(2):
                span.set(f"submit {number}")
                await session.submit("u")

    run_virtually(main())
    assert len(seen) == 10
    for line in seen:
        who, _, where = line.partition(" in ")
        assert where == ("session" if who.endswith("out") else f"submit {who.split()[1]}"), line


def test_what_can_be_gone_through_once_is_there_for_every_job():
    async def main() -> None:
        source = LeaseSource()
        async with Pipeline(source, [Stage("ASR", taking(1), lease={"gpus": iter(["gpu:1"])})]) as pipeline:
            session = pipeline.session("s")
            await session.submit("u")
            await session.submit("u")
        assert [options["gpus"] for _, options in source.asked] == [("gpu:1",)] * 2

    run_virtually(main())


def test_the_group_of_a_long_name_fits_into_the_contract():
    async def main() -> None:
        source = LeaseSource()
        async with Pipeline(source, [Stage("ASR", taking(1))]) as pipeline:
            await pipeline.session("x" * 200).submit("")
        sequence = source.asked[0][1]["sequence"]
        assert sequence is not None
        assert len(sequence[0]) == 64

    run_virtually(main())


def test_a_stage_without_a_gpu_asks_for_no_lease_and_what_returns_nothing_passes_nothing_on():
    async def work(value: Any, run: StageRun) -> Any:
        assert run.lease is None
        return None if run.stage == "SPLIT" else [value]

    async def main() -> None:
        source = LeaseSource()
        stages = [Stage(name, work, gpu=False) for name in ("SPLIT", "WRAP")]
        async with Pipeline(source, stages) as pipeline:
            result = await (await pipeline.session("s").submit("x"))
        assert (result.value, result.stages[0].device, source.asked) == ([None], "", [])

    run_virtually(main())


def test_results_come_out_in_order_and_one_at_a_time():
    async def main() -> None:
        async def work(value: float, _run: StageRun) -> float:
            await asyncio.sleep(value)
            return value

        seen: list[tuple[int, float]] = []

        async def take(result: JobResult) -> None:
            await asyncio.sleep(10)
            seen.append((result.utterance_index, now()))

        stages = [Stage("ASR", work, gpu=False, concurrency=3)]
        async with Pipeline(LeaseSource(), stages) as pipeline:
            session = pipeline.session("s", on_result=take)
            jobs = [await session.submit(seconds) for seconds in (3.0, 2.0, 1.0)]
            results = [await job for job in jobs]
            assert now() == 3
            assert [result.held_back.total_seconds() for result in results] == [0, 1, 2]
        assert seen == [(0, 13), (1, 23), (2, 33)]

    run_virtually(main())


def test_a_late_result_holds_back_the_others_for_so_long_and_no_longer():
    async def main() -> None:
        async def work(value: float, _run: StageRun) -> float:
            await asyncio.sleep(value)
            return value

        seen: list[tuple[int, bool, float]] = []
        stages = [Stage("ASR", work, gpu=False, concurrency=3)]
        async with Pipeline(LeaseSource(), stages, hold_back="1500ms") as pipeline:
            session = pipeline.session("s", on_result=lambda r: seen.append((r.utterance_index, r.late, now())))
            for seconds in (1.0, 9.0, 2.0):
                await session.submit(seconds)
            await asyncio.sleep(3)
            assert (pipeline.statistics().in_flight, pipeline.statistics().held_back) == (2, 1)
        assert seen == [(0, False, 1), (2, False, 3.5), (1, True, 9)]
        assert pipeline.statistics().late == 1

    run_virtually(main())


@pytest.mark.parametrize(
    ("on_failure", "state", "value"), [("fail", "failed", None), ("skip", "done", "u>NMT")], ids=["fail", "skip"]
)
def test_what_a_failing_stage_means_is_its_policy(on_failure: Any, state: str, value: str | None):
    async def main() -> None:
        failures: list[StageResult] = []
        stages = [Stage("ASR", raising(OSError("no model")), on_failure=on_failure), Stage("NMT", taking(1))]
        async with Pipeline(LeaseSource(), stages, on_failure=failures.append) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert (result.state, result.value) == (state, value)
        (failure,) = failures
        assert (failure.stage, failure.cause, str(failure.error)) == ("ASR", "FAILED", "no model")
        assert failure.state == ("failed" if state == "failed" else "skipped")
        assert result.error is (failure.error if state == "failed" else None)
        stage = pipeline.statistics().stages["ASR"]
        assert (stage.failed, stage.skipped) == ((1, 0) if state == "failed" else (0, 1))

    run_virtually(main())


def test_a_lease_that_cannot_be_had_is_a_failure_of_the_stage():
    async def main() -> None:
        source = LeaseSource()
        source.answers["ASR"] = [QueueFull("full")]
        async with Pipeline(source, [Stage("ASR", taking(1))]) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert isinstance(result.error, QueueFull)
        assert (result.state, result.cause, result.stages[0].device) == ("failed", "FAILED", "")

    run_virtually(main())


@pytest.mark.parametrize("answer", [Skipped("busy"), FallbackToCpu("busy")], ids=["skip", "cpu"])
@pytest.mark.parametrize(("on_decline", "state"), [("skip", "done"), ("fail", "failed")])
def test_what_a_decline_means_is_its_policy(answer: Any, on_decline: Any, state: str):
    async def main() -> None:
        source = LeaseSource()
        source.answers["SEMANTIC_REPAIR"] = [answer]
        skips: list[StageResult] = []
        stages = [Stage("SEMANTIC_REPAIR", taking(1), on_decline=on_decline), Stage("NMT", taking(1))]

        async def told(result: StageResult) -> None:
            skips.append(result)
            raise ValueError("a callback's own trouble")

        async with Pipeline(source, stages, on_skip=told) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert (result.state, result.value) == (state, "u>NMT" if state == "done" else None)
        assert [(each.stage, each.cause, each.error) for each in skips] == [("SEMANTIC_REPAIR", "DECLINED", answer)]

    run_virtually(main())


def test_a_decline_that_the_work_itself_raises_is_its_failure():
    async def main() -> None:
        async with Pipeline(LeaseSource(), [Stage("ASR", raising(Skipped("inner")))]) as pipeline:
            assert (await (await pipeline.session("s").submit("u"))).cause == "FAILED"

    run_virtually(main())


def test_the_cpu_does_it_where_the_arbiter_says_so():
    async def on_cpu(value: str, run: StageRun) -> str:
        assert run.lease is None
        return value + " by cpu"

    async def main() -> None:
        source = LeaseSource()
        source.answers["ASR"] = [FallbackToCpu("busy")]
        async with Pipeline(source, [Stage("ASR", taking(1), cpu=on_cpu)]) as pipeline:
            session = pipeline.session("s")
            results = [await (await session.submit("u")) for _ in range(2)]
        assert [(result.value, result.stages[0].device) for result in results] == [
            ("u by cpu", "CPU"),
            ("u>ASR", "GPU"),
        ]
        ((task_type, report, context),) = source.told
        assert context is not None
        assert (task_type, report.device, context.job_id) == ("ASR", "CPU", "s/0")

    run_virtually(main())


def test_work_that_takes_too_long_is_cancelled_and_its_lease_given_back():
    async def main() -> None:
        source = LeaseSource(1)
        timeouts: list[StageResult] = []
        stages = [Stage("ASR", taking(60), timeout="2s"), Stage("NMT", taking(1))]
        async with Pipeline(source, stages, on_timeout=timeouts.append) as pipeline:
            slow, waiting = [await pipeline.session(name).submit("u") for name in ("s", "t")]
            results = [await slow, await waiting]
            assert now() == 2
        assert [type(result.error) for result in results] == [StageTimeout, StageTimeout]
        # The second never got the GPU.
        assert [(each.cause, each.device) for each in timeouts] == [("TIMED_OUT", "GPU"), ("TIMED_OUT", "")]
        assert [report and report.result for report in source.reports] == ["CANCELLED"]
        assert source.held == []

    run_virtually(main())


def test_a_stage_may_be_skipped_when_it_takes_too_long():
    async def main() -> None:
        stages = [Stage("ASR", taking(60), timeout=2, on_timeout="skip"), Stage("NMT", taking(1))]
        async with Pipeline(LeaseSource(), stages) as pipeline:
            assert (await (await pipeline.session("s").submit("u"))).value == "u>NMT"
            assert now() == 3

    run_virtually(main())


@pytest.mark.parametrize("stubborn", [False, True], ids=["ends", "goes on"])
def test_work_whose_lease_is_lost_is_ended_and_what_it_makes_does_not_count(stubborn: bool):
    async def work(value: str, _run: StageRun) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not stubborn:
                raise
        return value

    async def main() -> None:
        source = LeaseSource()
        lost: list[Any] = []
        tasks: list[Any] = []

        def lose(lease: FakeLease) -> None:
            asyncio.get_running_loop().call_later(1, lambda: tasks.append(asyncio.ensure_future(lease.lose())))

        source.granted = lose
        async with Pipeline(source, [Stage("ASR", work, lease={"on_lost": lost.append})]) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
            assert now() == 1
        assert isinstance(result.error, LeaseLost)
        assert (result.error.reason, result.cause, len(lost)) == ("REVOKED", "FAILED", 1)

    run_virtually(main())


def test_what_there_is_nothing_to_do_for_is_skipped():
    async def main() -> None:
        skips: list[StageResult] = []
        stages = [Stage("ASR", raising(SkipJob("silence"))), Stage("NMT", taking(1))]
        async with Pipeline(LeaseSource(), stages, on_skip=skips.append) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert (result.state, result.cause, str(result.error)) == ("skipped", "SKIPPED", "silence")
        assert [(each.stage, each.state) for each in skips] == [("ASR", "skipped")]
        assert pipeline.statistics().skipped == 1

    run_virtually(main())


def test_a_job_a_session_and_all_can_be_cancelled():
    async def main() -> None:
        source = LeaseSource(2)
        async with Pipeline(source, [Stage("ASR", taking(5), concurrency=2)], hold_back=None) as pipeline:
            one, other = pipeline.session("one"), pipeline.session("other")
            a, b, c, d = [await session.submit("u") for session in (one, other, one, other)]
            assert a.stages == {"ASR": "running"}
            assert c.cancel()
            assert not c.cancel()
            assert c.state == "failed"
            await asyncio.sleep(1)
            assert one.cancel() == 1
            assert [(await job).cause for job in (a, c)] == ["CANCELLED", "CANCELLED"]
            assert isinstance((await a).error, JobCancelled)
            assert now() == 1
            assert pipeline.cancel() == 2
            assert [(await job).cause for job in (b, d)] == ["CANCELLED", "CANCELLED"]
            e = await one.submit("u")
            assert (await e).state == "done"
            assert (e.session_id, e.utterance_index, e.stages) == ("one", 2, {"ASR": "done"})
        assert source.held == []

    run_virtually(main())


def test_who_waits_for_a_result_and_is_cancelled_takes_nothing_with_it():
    async def main() -> None:
        async with Pipeline(LeaseSource(), [Stage("ASR", taking(5))]) as pipeline:
            job = await pipeline.session("s").submit("u")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(job, 1)
            assert (await job).state == "done"

    run_virtually(main())


def test_submitting_waits_while_as_many_as_may_be_are_in_flight():
    async def main() -> None:
        async def take(_result: JobResult) -> None:
            await asyncio.sleep(10)

        stages = [Stage("ASR", taking(1), gpu=False, concurrency=9)]
        async with Pipeline(LeaseSource(), stages, max_in_flight=3, max_in_flight_per_session=2) as pipeline:
            slow, quick = pipeline.session("slow", on_result=take), pipeline.session("quick")
            await slow.submit("u")
            await slow.submit("u")
            third = asyncio.ensure_future(slow.submit("u"))
            await quick.submit("u")
            assert now() == 0
            await quick.submit("u")
            assert now() == 1
            await third
            assert now() == 11

    run_virtually(main())


@pytest.mark.parametrize("when", ["while it waits", "as it is handed over"])
def test_who_gives_up_submitting_leaves_the_place_to_the_next(when: str):
    async def main() -> None:
        places = Places(1)
        await places.take()
        leaving, staying = (asyncio.ensure_future(places.take()) for _ in range(2))
        await asyncio.sleep(0)
        if when == "as it is handed over":
            places.give_back()
            leaving.cancel()
        else:
            leaving.cancel()
            places.give_back()
        await staying
        assert leaving.cancelled()
        places.give_back()
        await places.take()

    run_virtually(main())


def test_closing_does_what_is_there_and_takes_nothing_more():
    async def main() -> None:
        stages = [Stage("ASR", taking(2), gpu=False, concurrency=1)]
        pipeline = Pipeline(LeaseSource(), stages, max_in_flight=2, hold_back=None)
        session = pipeline.session("s")
        jobs = [await session.submit("u"), await session.submit("u", utterance_index=5)]
        waiting = asyncio.ensure_future(session.submit("u"))
        await asyncio.sleep(0)
        await pipeline.close()
        assert now() == 4
        assert [(await job).state for job in jobs] == ["done", "done"]
        for submitting in (waiting, session.submit("u")):
            with pytest.raises(PipelineClosed):
                await submitting
        with pytest.raises(PipelineClosed):
            pipeline.session("t")
        await pipeline.close()

    run_virtually(main())


def test_closing_without_draining_cancels_and_waits_for_leases_to_be_back():
    async def main() -> None:
        source = LeaseSource()
        pipeline = Pipeline(source, [Stage("ASR", taking(60))])
        session = pipeline.session("s")
        jobs = [await session.submit("u") for _ in range(5)]
        await asyncio.sleep(1)
        await pipeline.close(drain=False)
        assert now() == 1
        assert [(await job).cause for job in jobs] == ["CANCELLED"] * 5
        assert source.held == []

    run_virtually(main())


def test_an_error_in_a_block_cancels_what_is_there():
    async def main() -> None:
        jobs = []

        async def failing(block: str) -> None:
            async with Pipeline(LeaseSource(), [Stage("ASR", taking(60))]) as pipeline:
                session = pipeline.session("s")
                jobs.append(await session.submit("u"))
                if block == "pipeline":
                    raise ZeroDivisionError
                async with session:
                    raise ZeroDivisionError

        for block in ("pipeline", "session"):
            with pytest.raises(ZeroDivisionError):
                await failing(block)
        assert [(await job).cause for job in jobs] == ["CANCELLED"] * 2
        assert now() == 0

    run_virtually(main())


def test_a_drain_that_is_given_up_cancels_what_is_there():
    async def main() -> None:
        pipeline = Pipeline(LeaseSource(), [Stage("ASR", taking(60))])
        job = await pipeline.session("s").submit("u")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipeline.close(), 1)
        assert (await job).cause == "CANCELLED"
        assert now() == 1

    run_virtually(main())


def test_work_that_does_not_end_is_left_alone(caplog: pytest.LogCaptureFixture):
    async def stubborn(value: str, _run: StageRun) -> str:
        for _ in range(40):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue
        return value

    async def main() -> None:
        pipeline = Pipeline(LeaseSource(), [Stage("ASR", stubborn, gpu=False)])
        job = await pipeline.session("s").submit("u")
        await asyncio.sleep(1)
        await pipeline.close(drain=False)
        assert now() == 11
        assert (await job).cause == "CANCELLED"
        await asyncio.sleep(40)

    caplog.set_level(logging.WARNING, "gpuarbiter")
    run_virtually(main())
    assert "work of ASR did not end when told to" in caplog.text


def test_callbacks_that_raise_change_nothing(caplog: pytest.LogCaptureFixture):
    def refuse(_told: object) -> None:
        raise ValueError("no")

    async def give_up(_told: object) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        stages = [Stage("ASR", raising(OSError()), gpu=False)]
        async with Pipeline(LeaseSource(), stages, on_failure=refuse) as pipeline:
            for name, callback in (("s", refuse), ("t", give_up)):
                session = pipeline.session(name, on_result=callback)
                for _ in range(2):
                    await session.submit("u")
        assert pipeline.statistics().failed == 4

    run_virtually(main())
    assert caplog.text.count("on_result of session s raised") == 2
    assert caplog.text.count("on_result of session t was cancelled") == 2
    assert "the callback about ASR raised" in caplog.text


def test_a_task_that_somebody_else_cancels_is_a_job_that_was_cancelled():
    async def work(_value: str, _run: StageRun) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        async with Pipeline(LeaseSource(), [Stage("ASR", work)]) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert (result.cause, type(result.error)) == ("CANCELLED", JobCancelled)

    run_virtually(main())


def test_an_error_of_another_kind_is_a_failure_all_the_same():
    class Odd(BaseException):
        pass

    async def main() -> None:
        async with Pipeline(LeaseSource(), [Stage("ASR", raising(Odd()))]) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert (result.cause, type(result.error)) == ("FAILED", Odd)

    run_virtually(main())


def test_what_brings_the_next_event_about_is_done_with_first():
    async def main() -> None:
        engine = Engine(LeaseSource(), [Stage("ASR", taking(1), gpu=False, concurrency=2)], None, {})
        session = engine.open("s", 0)
        out: list[tuple[int, str]] = []

        def take(result: JobResult) -> None:
            assert engine.cancel_all() == (2 if not out else 0)
            out.append((result.utterance_index, result.state))

        for _ in range(3):
            engine.submit(session, None, "u", take)
        await asyncio.sleep(1.5)
        assert out == [(0, "done"), (1, "failed"), (2, "failed")]
        await engine.settle(1)

    run_virtually(main())


def test_work_that_is_no_async_function_is_a_failure_that_says_so():
    async def main() -> None:
        synchronous: Any = lambda value, _run: value  # noqa: E731 -- this is what people write
        async with Pipeline(LeaseSource(), [Stage("ASR", synchronous)]) as pipeline:
            result = await (await pipeline.session("s").submit("u"))
        assert "the work of ASR is no async function; asyncio.to_thread makes one" in str(result.error)

    run_virtually(main())


# -- what cannot be asked for ----------------------------------------------------------------------

WORK = taking(1)
STAGE: Any = Stage


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: STAGE("no spaces", WORK), "is no name of a stage"),
        (lambda: STAGE("", WORK), "is no name of a stage"),
        (lambda: STAGE("ASR", None), "work of ASR: 'nothing' cannot be called"),
        (lambda: STAGE("ASR", WORK, cpu=3), "cpu of ASR: 3 cannot be called"),
        (lambda: STAGE("ASR", WORK, concurrency=0), "concurrency of ASR: 0 is not allowed"),
        (lambda: STAGE("ASR", WORK, on_failure="retry"), 'on_failure of ASR: .retry. is not allowed; write "fail" or'),
        (lambda: STAGE("ASR", WORK, on_timeout="retry"), "on_timeout of ASR"),
        (lambda: STAGE("ASR", WORK, on_decline=None), "on_decline of ASR"),
        (lambda: STAGE("ASR", WORK, timeout=0), "timeout of ASR: 0 leaves no time"),
        (lambda: STAGE("ASR", WORK, timeout="soon"), "is not a duration"),
        (lambda: STAGE("ASR", WORK, lease={"memroy": 1}), "unexpected keyword argument 'memroy'"),
        (lambda: STAGE("ASR", WORK, lease={"memory": "6G"}), "'6G' is not a size"),
        (lambda: STAGE("ASR", WORK, lease={"detached": True}), "detached needs a ttl"),
        (lambda: STAGE("ASR", WORK, lease={"sequence": ("a", 1)}), "sequence is said by the pipeline itself"),
        (lambda: STAGE("ASR", WORK, gpu=False, lease={"memory": 1}), "has gpu=False"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_where_it_is_written(make: Callable[[], object], said: str):
    with pytest.raises((ValueError, TypeError), match=said):
        make()


@pytest.mark.parametrize(
    ("stages", "options", "said"),
    [
        ([], {}, "at least one"),
        ([Stage("ASR", WORK), Stage("ASR", WORK)], {}, "each name once"),
        ([Stage("ASR", WORK)], {"max_in_flight": 0}, "max_in_flight: 0 is not allowed"),
        ([Stage("ASR", WORK)], {"max_in_flight_per_session": 1.5}, "max_in_flight_per_session: 1.5 is not allowed"),
        ([Stage("ASR", WORK)], {"hold_back": "-1s"}, "is not a duration"),
        ([Stage("ASR", WORK)], {"on_skip": "log"}, "on_skip: 'log' cannot be called"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused(stages: list[Stage], options: Any, said: str):
    source: Any = None
    with pytest.raises((ValueError, TypeError), match=said):
        Pipeline(source, stages, **options)


def test_sessions_and_indices_that_cannot_be_are_refused_and_change_nothing():
    async def main() -> None:
        async with Pipeline(
            LeaseSource(), [Stage("ASR", taking(1))], max_in_flight=1, max_in_flight_per_session=1
        ) as pipeline:
            wrong: tuple[Any, ...] = ("", "x" * 201, "two\nlines", 7)
            for name in wrong:
                with pytest.raises(ValueError, match="write 1 to 200 printable characters"):
                    pipeline.session(name)
            listener: Any = "log"
            with pytest.raises(TypeError, match="on_result: 'log' cannot be called"):
                pipeline.session("s", on_result=listener)
            with pytest.raises(ValueError, match="first_index -1 is not allowed"):
                pipeline.session("s", first_index=-1)
            session = pipeline.session("s")
            with pytest.raises(ValueError, match="session 's' is open already"):
                pipeline.session("s")
            indices: tuple[Any, ...] = (-1, 1.5, "1", True, 2**53)
            for index in indices:
                with pytest.raises(ValueError, match=r"utterance_index .* is not allowed; write a whole number, 0 to"):
                    await session.submit("u", utterance_index=index)
            await (await session.submit("u"))
            with pytest.raises(ValueError, match="utterance_index 0 is there already"):
                await session.submit("u", utterance_index=0)
            await session.submit("u")
            await session.end()
            await session.end()
            again = pipeline.session("s")
            assert (await (await again.submit("u"))).utterance_index == 0

    run_virtually(main())
