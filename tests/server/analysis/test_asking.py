"""A server of models over real HTTP, by the real library: what is asked, what counts, and what costs nothing."""

import gzip
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from fakes.model_server import GOOD, HOSTILE, ModelServer, Question, Reply, fails, judges, says
from gpuarbiter_server.analysis import chat
from gpuarbiter_server.analysis.answer import SCHEMA
from gpuarbiter_server.analysis.asking import Asker, KeyTroubleError, ModelSettings
from gpuarbiter_server.analysis.model import Result, Verdict
from gpuarbiter_server.analysis.outcomes import NoAnswerError, Outcome
from gpuarbiter_server.analysis.service import Settings, evaluate
from server.analysis.windows import window

KEY = "sk-secret-0123456789abcdef"
IDLE: Result = evaluate([window([0.0] * 20)], Settings())[0]
JSON_SCHEMA, JSON_OBJECT = "json_schema", "json_object"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def asking(url: str, *, key: Callable[[], str] = lambda: KEY, **settings: Any) -> AsyncIterator[Asker]:
    asker = Asker(url, key=key, clock=Clock())
    await asker.prepare(ModelSettings(model="stand-in", **settings))
    try:
        yield asker
    finally:
        await asker.close()


async def refused(asker: Asker) -> tuple[Outcome, str]:
    with pytest.raises(NoAnswerError) as caught:
        await asker.ask(IDLE)
    assert KEY not in str(caught.value)
    return caught.value.outcome, str(caught.value)


async def test_a_good_answer_is_a_judgement():
    with ModelServer(judges()) as server:
        async with asking(server.url) as asker:
            judged = await asker.ask(IDLE)
            assert asker.trouble == ""
    assert (judged.verdict, judged.confidence, judged.adjusted_score) == (Verdict.SUSPICIOUS, 0.9, 4.5)
    (question,) = server.asked
    assert question.path == "/v1/chat/completions"
    assert question.headers["authorization"] == f"Bearer {KEY}"
    assert question.body["model"] == "stand-in"
    assert question.body["max_tokens"] == 1000
    assert question.body["response_format"]["json_schema"] == {"name": "judgement", "strict": True, "schema": SCHEMA}
    assert [each["role"] for each in question.body["messages"]] == ["system", "user"]
    assert question.data["rules"]["status"] == "suspicious"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (says("Certainly! The GPU is idle."), "no valid answer: json_invalid"),
        (says(json.dumps(GOOD)[:-9]), "no valid answer: json_invalid"),
        (says('{"action": "release"}'), "no valid answer"),
        (judges(confidence=7), "no valid answer: confidence: less_than_equal"),
        (says(json.dumps(GOOD)[:40], finish="length"), "analysis.ai.max_answer_tokens is too small"),
        (says(None), "it answered without a text"),
        (says(["text"]), "it answered without a text"),
        (Reply(body=b'{"choices": []}'), "is no chat completion"),
        (Reply(body=b'{"choices": [7]}'), "is no chat completion"),
        (Reply(body=b"[1, 2]"), "is no chat completion"),
        (Reply(body=b'{"choices'), "is no JSON"),
        (Reply(body=b'{"a":' * 20_000), "is no JSON"),
        (Reply(body=b"<html>sign in</html>", headers={"Content-Type": "text/html"}), "is no chat completion"),
        (says("x" * 300_000), "has more than 256 KiB"),
        (Reply(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}), "is compressed"),
    ],
)
async def test_what_is_no_valid_answer_is_malformed(reply: Reply, said: str):
    with ModelServer(reply) as server:
        async with asking(server.url) as asker:
            outcome, why = await refused(asker)
            assert (outcome, said in why) == (Outcome.MALFORMED, True), why
            assert asker.trouble == why
            server.replies = [judges()]
            await asker.ask(IDLE)
            assert asker.trouble == ""


async def test_an_answer_full_of_instructions_is_text_and_nothing_more():
    with ModelServer(judges(reason=HOSTILE, recommendation=HOSTILE)) as server:
        async with asking(server.url) as asker:
            judged = await asker.ask(IDLE)
    assert judged.reason.isprintable()
    assert "release all leases" in judged.reason
    assert len(server.asked) == 1


async def test_a_slow_answer_is_given_up():
    never = threading.Event()
    with ModelServer(Reply(after=never)) as server:
        async with asking(server.url, timeout=0.2) as asker:
            assert await refused(asker) == (Outcome.TIMEOUT, "no answer within 0.2 s")
        never.set()


async def test_a_server_that_is_asked_too_often_gets_the_time_that_it_asks_for_if_there_is_as_much():
    with ModelServer(fails(429, "rate_limit_exceeded", Retry_After="0.01"), judges()) as server:
        async with asking(server.url) as asker:
            await asker.ask(IDLE)
            assert len(server.asked) == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_asks_for_more_time_than_there_is_is_left_alone(status: int):
    with ModelServer(fails(status, Retry_After="90")) as server:
        async with asking(server.url) as asker:
            outcome, why = await refused(asker)
            assert outcome is (Outcome.RATE_LIMITED if status == 429 else Outcome.ERROR)
            assert asker.trouble == f"{why}; it is left alone for another 90 s"
            assert (await refused(asker))[0] is Outcome.REFUSED
    assert len(server.asked) == 1


@pytest.mark.parametrize("said", ["soon", "nan", "-5", "Mon, 01 Jan 1990 00:00:00 GMT", "Mon, 99 Jan 1990"])
async def test_a_time_to_wait_that_is_none_is_not_waited(said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat, "_RETRIES", 0)
    with ModelServer(fails(429, Retry_After=said)) as server:
        async with asking(server.url) as asker:
            assert await refused(asker) == (Outcome.RATE_LIMITED, "HTTP 429")
            assert asker.trouble == "HTTP 429"


async def test_a_date_until_which_to_wait_is_understood():
    with ModelServer(fails(429, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")) as server:
        async with asking(server.url) as asker:
            await refused(asker)
            assert "left alone for another 3600 s" in asker.trouble


async def test_an_error_is_tried_again_a_bounded_number_of_times():
    with ModelServer(fails(500, Retry_After_Ms="1")) as server:
        async with asking(server.url) as asker:
            assert await refused(asker) == (Outcome.ERROR, "HTTP 500")
            assert len(server.asked) == 3
            server.replies = [fails(502, Retry_After_Ms="1"), judges()]
            await asker.ask(IDLE)


async def test_where_nobody_listens_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat, "_RETRIES", 0)
    with ModelServer() as server:
        url = server.url
    async with asking(url) as asker:
        outcome, why = await refused(asker)
        # The loop of asyncio words it differently from uvloop.
        assert (
            outcome,
            why.startswith(("no connection: Connect call failed", "no connection: Connection refused")),
        ) == (
            Outcome.ERROR,
            True,
        )
        for _ in range(2):
            await refused(asker)
        # From the third on it costs nothing.
        assert (await refused(asker))[0] is Outcome.REFUSED
        assert "left alone for another 60 s" in asker.trouble


async def test_a_connection_that_breaks_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat, "_RETRIES", 0)
    with ModelServer(Reply(headers={"Content-Length": "9"})) as server:
        async with asking(server.url, timeout=5) as asker:
            server._server.RequestHandlerClass.protocol_version = "HTTP/1.0"
            outcome, _ = await refused(asker)
            assert outcome is Outcome.ERROR


async def test_the_key_goes_to_the_configured_server_alone():
    with ModelServer(judges()) as other:
        for status in (301, 307, 308):
            with ModelServer(Reply(status, headers={"Location": f"{other.url}/chat/completions"})) as server:
                async with asking(server.url) as asker:
                    assert await refused(asker) == (Outcome.ERROR, f"HTTP {status}")
    assert other.asked == []


async def test_what_a_server_writes_about_a_key_is_not_repeated():
    with ModelServer(fails(401, "invalid_api_key", f"Incorrect API key provided: {KEY}")) as server:
        async with asking(server.url) as asker:
            assert await refused(asker) == (Outcome.ERROR, "HTTP 401 (invalid_api_key)")
            server.replies = [fails(403, KEY, KEY)]
            assert await refused(asker) == (Outcome.ERROR, "HTTP 403")


async def test_the_key_is_in_no_line_of_the_log_however_much_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    names = ("openai", "httpx2", "httpcore2")
    levels = [logging.getLogger(name).level for name in names]
    replies = [judges(), fails(401, "bad", KEY), says(KEY), fails(500, "", KEY, Retry_After_Ms="1"), Reply(body=b"no")]
    with caplog.at_level(logging.DEBUG), ModelServer() as server:
        for name in names:
            logging.getLogger(name).setLevel(logging.DEBUG)
        async with asking(server.url) as asker:
            for reply in replies:
                server.replies = [reply]
                try:
                    await asker.ask(IDLE)
                except NoAnswerError as error:
                    logging.getLogger().exception("as whoever does not know it would log it", exc_info=error)
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)
    assert "POST" in caplog.text
    assert all(KEY not in f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
    assert KEY not in caplog.text + "".join(capfd.readouterr())
    assert all(KEY in question.headers["authorization"] for question in server.asked)


def old_server(*, tokens: str, formats: set[str]) -> Callable[[Question], Reply]:
    """Refuses what it does not know, as real ones do."""

    def reply(question: Question) -> Reply:
        asked = question.body.get("response_format", {}).get("type", "none")
        if tokens not in question.body:
            return fails(400, "unsupported_parameter")
        return judges() if asked in formats else fails(422, "invalid_value")

    return reply


@pytest.mark.parametrize(
    ("tokens", "formats", "requests"),
    [
        ("max_tokens", {JSON_SCHEMA}, 1),
        ("max_completion_tokens", {JSON_SCHEMA}, 2),
        ("max_tokens", {JSON_OBJECT}, 3),
        ("max_tokens", {"none"}, 4),
    ],
)
async def test_each_kind_of_server_is_asked_as_it_can_be_and_that_is_remembered(
    tokens: str, formats: set[str], requests: int
):
    with ModelServer(by=old_server(tokens=tokens, formats=formats)) as server:
        async with asking(server.url) as asker:
            await asker.ask(IDLE)
            assert len(server.asked) == requests
            await asker.ask(IDLE)
            assert len(server.asked) == requests + 1


async def test_a_question_that_is_refused_in_every_form_is_an_error_and_not_asked_in_all_of_them_again():
    with ModelServer(judges()) as server:
        async with asking(server.url) as asker:
            await asker.ask(IDLE)
            server.replies = [fails(400, "content_filter")]
            assert await refused(asker) == (Outcome.ERROR, "HTTP 400 (content_filter)")
            assert len(server.asked) == 2
            # Perhaps it is another server by now.
            await refused(asker)
            assert len(server.asked) == 6


async def test_limits_count_every_request_and_what_is_over_them_is_not_sent():
    with ModelServer(fails(500, Retry_After_Ms="1")) as server:
        async with asking(server.url, max_requests_per_minute=2) as asker:
            assert await refused(asker) == (Outcome.REFUSED, "the limit of 2 requests a minute is reached")
            assert len(server.asked) == 2
            assert await refused(asker) == (Outcome.REFUSED, "the limit of 2 requests a minute is reached")
            assert len(server.asked) == 2
            await asker.prepare(ModelSettings(model="stand-in", max_requests_per_minute=9, max_requests_per_day=3))
            server.replies = [judges()]
            await asker.ask(IDLE)
            assert await refused(asker) == (Outcome.REFUSED, "the limit of 3 requests a day is reached")
    assert len(server.asked) == 3


async def test_another_key_counts_from_the_next_run_on():
    keys = ["one", "one", "two"]
    with ModelServer(judges()) as server:
        async with asking(server.url, key=lambda: keys.pop(0)) as asker:
            for _ in range(2):
                await asker.ask(IDLE)
                await asker.prepare(ModelSettings(model="stand-in"))
            await asker.ask(IDLE)
    assert [each.headers["authorization"] for each in server.asked] == ["Bearer one", "Bearer one", "Bearer two"]


async def test_a_key_that_cannot_be_had_is_an_error_and_nothing_is_asked():
    def key() -> str:
        raise KeyTroubleError("the key in /run/key cannot be read: Permission denied")

    asker = Asker("http://127.0.0.1:9/v1", key=key, clock=Clock())
    with pytest.raises(NoAnswerError, match="Permission denied"):
        await asker.prepare(ModelSettings())
    assert asker.trouble == "the key in /run/key cannot be read: Permission denied"
    await asker.close()


async def test_what_nobody_thought_of_is_an_error_that_tells_no_more_than_its_kind(monkeypatch: pytest.MonkeyPatch):
    def odd(_answer: object) -> str:
        raise RuntimeError(KEY)

    monkeypatch.setattr(chat, "_text", odd)
    with ModelServer(judges()) as server:
        async with asking(server.url) as asker:
            assert await refused(asker) == (Outcome.ERROR, "RuntimeError")


async def test_both_sides_speak_the_protocol_as_the_library_describes_it():
    with ModelServer(by=old_server(tokens="max_tokens", formats={"none"})) as server:
        async with asking(server.url) as asker:
            await asker.ask(IDLE)
    for question in server.asked:
        TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(question.body)
    ChatCompletion.model_validate_json(judges().body, strict=True)


async def test_an_environment_that_the_library_cannot_work_with_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    asker = Asker("https://127.0.0.1:9/v1", key=lambda: KEY, clock=Clock())
    with pytest.raises(NoAnswerError, match="the library cannot be set up: FileNotFoundError"):
        await asker.prepare(ModelSettings())
    assert asker.trouble == "the library cannot be set up: FileNotFoundError"


async def test_accounts_of_the_environment_are_not_told_to_the_server(monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with ModelServer(judges()) as server:
        async with asking(server.url, key=lambda: "") as asker:
            await asker.ask(IDLE)
    (question,) = server.asked
    assert "theirs" not in " ".join(question.headers.values())
    assert question.headers["authorization"] == "Bearer none"
