"""Who may change something over HTTP, and how such a request has to look; for every route that changes something.

Law: only JSON is taken, by a name of this machine, from no page of elsewhere, and with the admin token. A browser lets
any page send a form to 127.0.0.1, and a name that somebody else owns may lead here (DNS rebinding); neither may change
anything, even where a browser knows the token.
"""

import hmac
import ipaddress
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

_MOST_BYTES = 64 * 1024
_SCHEME = "bearer"
# Another port of this machine is elsewhere, too; `none`: typed by a person, or from no browser.
_OF_HERE = ("same-origin", "none")
_ASK = {"WWW-Authenticate": 'Bearer realm="gpu-arbiter"'}
_WRONG = "this is not the admin token; `gpu-arbiterd token`, with the options of this arbiter, prints it"
# What /openapi.json says of such a route.
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "There is no admin token with it."},
    403: {
        "description": "The admin token is wrong; or asked by a name that is none of this machine, or from elsewhere."
    },
    413: {"description": "The body is too large."},
    415: {"description": "The body is no application/json."},
}


class Guard:
    """Lets those pass who have the token."""

    def __init__(self, admin_token: str) -> None:
        self._token = admin_token.encode()

    async def body(self, request: Request) -> Mapping[str, Any]:
        """What a request that may change something says: a JSON object.

        Raises:
            HTTPException: it may not, or says something else; with why, and what to do.
        """
        refuse_strangers(request, "changes are")
        self._refuse_without_token(request.headers.get("authorization", ""))
        return await _object(request)

    def _refuse_without_token(self, authorization: str) -> None:
        scheme, _, said = authorization.partition(" ")
        if scheme.lower() != _SCHEME or not said.strip():
            hint = "say Authorization: Bearer and the admin token, which `gpu-arbiterd token` prints"
            raise HTTPException(401, hint, _ASK)
        # Headers are Latin-1; what takes longer the more of it is right could be guessed.
        if not hmac.compare_digest(said.strip().encode("latin-1"), self._token):
            raise HTTPException(403, _WRONG)


def refuse_strangers(request: Request, what: str) -> None:
    """Lets no page of elsewhere in, nor who asks by a name that is none of this machine; HTTPException for those.

    what: what is asked for, with its verb ("changes are").
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not _is_local(host):
        raise HTTPException(403, f"{what} to be had by localhost or a loopback address only")
    # What a browser sends with every request, whether it says an origin or not.
    elsewhere = request.headers.get("sec-fetch-site", "none") not in _OF_HERE
    if elsewhere or (origin is not None and origin.partition("://")[2] != host):
        raise HTTPException(403, f"{what} not to be had by pages of elsewhere")


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _object(request: Request) -> Mapping[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "write the change as application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"a change has {_MOST_BYTES} bytes at most")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is no JSON") from None
    if not isinstance(said, dict):
        raise HTTPException(422, "write a JSON object")
    return said
