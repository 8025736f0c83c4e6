"""The only user of the openai library: asks a server that speaks OpenAI's protocol, within bounds.

Law: every wait, every answer and every request that is sent is bounded, those that the library repeats too. The key
goes to the configured address alone: no redirect is followed, and no error or log line carries it.
"""

import asyncio
import email.utils
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import httpx2
import openai
from openai.types.chat import ChatCompletion

from gpuarbiter_server.analysis.outcomes import NoAnswerError, Outcome

# Beside the first time, for what may pass: no connection, 408, 409, 429 and 5xx.
_RETRIES = 2
_MOST_BYTES = 256 * 1024
_SHOWN = 120
_TOO_MANY, _UNAVAILABLE = 429, 503
_PLAIN = "identity"

for _name in ("openai", "httpx2", "httpcore2"):
    # A line for each request is more than the log of an arbiter is for. `log_levels` reaches the modules below them.
    logging.getLogger(_name).setLevel(logging.WARNING)


def _forms(schema: dict[str, Any], most_tokens: int) -> list[dict[str, Any]]:
    """How the same is asked of different servers, the best first."""
    by_schema = {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}
    return [
        {"response_format": by_schema, "max_tokens": most_tokens},
        # Models of OpenAI that think do not take max_tokens; many other servers know nothing else.
        {"response_format": by_schema, "max_completion_tokens": most_tokens},
        {"response_format": {"type": "json_object"}, "max_tokens": most_tokens},
        {"max_tokens": most_tokens},
    ]


class Chat:
    """One server.

    key: empty where it asks for none. timeout: seconds for one answer, repeated requests and all. spend: is called
    before each request, and raises where there may be none.
    """

    def __init__(self, url: str, *, key: str, timeout: float, spend: Callable[[], None]) -> None:
        self._timeout = timeout
        self._spend = spend
        # The form that a model is known to take.
        self._known: dict[str, int] = {}
        headers: dict[str, Any] = {
            # Not what the environment says of accounts elsewhere.
            "OpenAI-Organization": openai.Omit(),
            "OpenAI-Project": openai.Omit(),
            "Accept-Encoding": _PLAIN,
        }
        self._client = openai.AsyncOpenAI(
            # The library wants one; servers that ask for none do not look.
            api_key=key or "none",
            base_url=url,
            max_retries=_RETRIES,
            default_headers=headers,
            http_client=httpx2.AsyncClient(
                timeout=timeout,
                follow_redirects=False,
                event_hooks={"request": [self._before], "response": [self._bound]},
            ),
        )

    async def ask(self, model: str, system: str, question: str, *, schema: dict[str, Any], most_tokens: int) -> str:
        """What it answers; NoAnswerError where it does not, and whatever `spend` raises."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        try:
            async with asyncio.timeout(self._timeout):
                return _text(await self._create(model, messages, _forms(schema, most_tokens)))
        except (TimeoutError, openai.APITimeoutError):
            raise NoAnswerError(Outcome.TIMEOUT, f"no answer within {self._timeout:g} s") from None
        except openai.APIStatusError as error:
            limited = error.status_code == _TOO_MANY
            raise NoAnswerError(
                Outcome.RATE_LIMITED if limited else Outcome.ERROR, _said(error), wait=_retry_after(error.response)
            ) from None
        except openai.APIConnectionError as error:
            raise NoAnswerError(Outcome.ERROR, f"no connection: {_cause(error)}") from None
        except (ValueError, RecursionError):
            raise NoAnswerError(Outcome.MALFORMED, "what it answers is no JSON") from None

    async def close(self) -> None:
        """Hangs up."""
        await self._client.close()

    async def _create(self, model: str, messages: list[dict[str, str]], forms: list[dict[str, Any]]) -> object:
        """Asks in the form that the model is known to take, or in one after the other until it takes one."""
        known = self._known.get(model)
        refused: openai.APIStatusError | None = None
        for index in range(len(forms)) if known is None else [known]:
            create: Any = self._client.chat.completions.create
            try:
                answer: object = await create(model=model, messages=messages, **forms[index])
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = error
                continue
            self._known[model] = index
            return answer
        # Perhaps it takes another form by now.
        self._known.pop(model, None)
        assert refused is not None
        raise refused

    async def _before(self, _request: httpx2.Request) -> None:
        self._spend()

    async def _bound(self, response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", _PLAIN).lower() != _PLAIN:
            raise NoAnswerError(Outcome.MALFORMED, "what it answers is compressed, though that was not asked for")
        if response.status_code in {_TOO_MANY, _UNAVAILABLE} and _retry_after(response) > self._timeout:
            # The library would wait for longer than there is.
            response.headers["x-should-retry"] = "false"
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, as long as it is not too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > _MOST_BYTES:
                raise NoAnswerError(Outcome.MALFORMED, f"what it answers has more than {_MOST_BYTES >> 10} KiB")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _text(answer: object) -> str:
    """What the model wrote. The library checks nothing of an answer."""
    try:
        choice = cast("ChatCompletion", answer).choices[0]
        text: object = choice.message.content
        ended: object = choice.finish_reason
    except (AttributeError, IndexError, KeyError, TypeError):
        raise NoAnswerError(Outcome.MALFORMED, "what it answers is no chat completion") from None
    if ended == "length":
        raise NoAnswerError(Outcome.MALFORMED, "it was cut off: analysis.ai.max_answer_tokens is too small for it")
    if not isinstance(text, str):
        raise NoAnswerError(Outcome.MALFORMED, "it answered without a text")
    return text


def _said(error: openai.APIStatusError) -> str:
    """The status and the server's code for it; nothing that it wrote freely, which may repeat the key."""
    code = error.code if isinstance(error.code, str) and re.fullmatch(r"[a-z_]{1,40}", error.code) else ""
    return f"HTTP {error.status_code}" + (f" ({code})" if code else "")


def _cause(error: BaseException) -> str:
    """Why there is no connection: what the system says, which stands deepest; else the kind of the error."""
    said, cause = type(error.__cause__ or error).__name__, error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            said = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return said[:_SHOWN]


def _retry_after(response: httpx2.Response) -> float:
    """Seconds; 0 where it does not say."""
    said = response.headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return 0.0
    # Not a number compares as neither.
    return seconds if seconds > 0 else 0.0
