"""The HTTP side of an arbiter, asked as it stands.

Law: nothing is followed and nothing is in between: no redirect, no proxy. An answer that did not come is an
answer too, with its problem instead of a status.
"""

from http.client import HTTPException, HTTPMessage
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

_SECONDS = 10.0
_LARGEST = 64 * 2**20


class Answer(NamedTuple):
    """What came back; status 0: nothing, and `problem` says why."""

    status: int
    content_type: str = ""
    body: bytes = b""
    problem: str = ""

    @property
    def said(self) -> str:
        """The status and the content type, or the problem, for a line."""
        if self.problem:
            return f"no answer: {self.problem}"
        return f"{self.status} {self.content_type or 'without a content type'}"


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follows none: the redirect itself is the answer."""


class Site:
    """What listens at a base URL such as http://127.0.0.1:9402."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._opener = build_opener(ProxyHandler({}), _NoRedirects)

    def ask(self, path: str, *, method: str = "GET", accept: str = "") -> Answer:
        """The answer to a request."""
        headers = {"Accept": accept} if accept else {}
        request = Request(self.base + path, method=method, headers=headers)  # noqa: S310 -- http and https only, see kinds.url
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                return _read(answer)
        except HTTPError as refused:
            with refused:
                return _read(refused)
        except URLError as error:
            return Answer(0, problem=str(error.reason))
        except (OSError, HTTPException) as error:
            return Answer(0, problem=str(error) or type(error).__name__)


def _read(answer: Any) -> Answer:
    try:
        body: bytes = answer.read(_LARGEST + 1)
    except (OSError, HTTPException) as error:
        return Answer(0, problem=f"it broke off: {str(error) or type(error).__name__}")
    if len(body) > _LARGEST:
        return Answer(0, problem=f"more than {_LARGEST // 2**20} MiB")
    return Answer(answer.status, answer.headers.get("Content-Type", ""), body)
