"""Which requests a route means, and what it refuses to mean."""

from typing import Any

import pytest

from fakes.asgi_server import HTTP, WEBSOCKET
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute


def matches(route: GpuRoute, path: str, **more: Any) -> bool:
    return route.matches({**HTTP, "path": path, **more})


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("/work", ["/work"], ["/work/", "/working", "/", "/a/work", "/work\n"]),
        ("/jobs/{id}/run", ["/jobs/7/run"], ["/jobs//run", "/jobs/7/8/run", "/jobs/7/run/"]),
        ("/jobs/{id:int}", ["/jobs/7"], ["/jobs", "/jobs/7/8"]),
        ("/v1/*", ["/v1/", "/v1/a", "/v1/a/b", "/v1/a\nb"], ["/v1", "/v2/a"]),
        ("/files/{rest:path}", ["/files/a/b"], ["/files"]),
        ("*.wav", ["/a/b.wav"], ["/a/b.wave"]),
        ("/a.c", ["/a.c"], ["/abc"]),
        ("*", ["/", "/a/b"], []),
    ],
)
def test_paths(pattern: str, good: list[str], bad: list[str]):
    route = GpuRoute("ASR", pattern)
    assert [path for path in good + bad if matches(route, path)] == good


def test_paths_are_those_below_where_the_application_is_mounted():
    route = GpuRoute("ASR", "/work")
    for path, root in (("/api/work", "/api"), ("/api/work", "/api/"), ("/work", ""), ("/work", "/api")):
        assert matches(route, path, root_path=root)
    for path, root in (("/apiwork", "/api"), ("/api/work", ""), ("/api", "/api")):
        assert not matches(route, path, root_path=root)
    assert not matches(GpuRoute("ASR", "/api"), "/api", root_path="/api")
    assert matches(GpuRoute("ASR", "/apiwork"), "/apiwork", root_path="/api")
    assert route.matches({"type": "http", "method": "POST", "path": "/work"})


def test_methods():
    assert [each for each in ("GET", "HEAD", "POST", "OPTIONS") if matches(GpuRoute("ASR"), "/", method=each)] == [
        "GET",
        "HEAD",
        "POST",
    ]
    assert matches(GpuRoute("ASR", methods=["post"]), "/")
    assert not matches(GpuRoute("ASR", methods=["GET", "PUT"]), "/")
    assert matches(GpuRoute("ASR", methods=["OPTIONS"]), "/", method="OPTIONS")


def test_what_the_scope_says():
    route = GpuRoute("ASR", "/work", when=lambda scope: (b"x-gpu", b"yes") in scope["headers"])
    assert matches(route, "/work", headers=[(b"x-gpu", b"yes")])
    assert not matches(route, "/work")


def test_websockets_only_where_they_are_named():
    route, plain = GpuRoute("ASR", "/work", websocket=True), GpuRoute("ASR", "/work")
    assert route.matches(WEBSOCKET)
    assert not plain.matches(WEBSOCKET)
    assert not route.matches(HTTP)


def test_options_of_a_request_add_to_those_of_the_route():
    route = GpuRoute("ASR", memory="1GiB", priority=3, per_request=lambda scope: {"priority": len(scope["path"])})
    assert route.options(HTTP) == {"memory": "1GiB", "priority": 5}
    assert GpuRoute("ASR", memory="1GiB").options(HTTP) == {"memory": "1GiB"}


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((), {}, "task_type"),
        (("",), {}, "begins with its task type"),
        ((7,), {}, "begins with its task type"),
        (("ASR", "work"), {}, "begins with '/'"),
        (("ASR", "/a/{b"), {}, "'{' in '/a/{b'"),
        (("ASR", "/a/b}"), {}, "'}' in '/a/b}'"),
        (("ASR",), {"methods": "POST"}, r"methods is a list, such as \['POST'\]"),
        (("ASR",), {"methods": ["GET"], "websocket": True}, "no methods"),
        (("ASR",), {"memory": "6G"}, "6G"),
        (("ASR",), {"busy_policy": "HOPE"}, "HOPE"),
        (("ASR",), {"max_wait": -1}, "-1"),
        (("ASR",), {"memroy": "6GiB"}, "unexpected keyword argument 'memroy'"),
        (("ASR",), {"request_id": "one"}, "request_id is another one for each request"),
        (("ASR",), {"sequence": ("s", 1)}, "sequence is another one for each request"),
        (("ASR",), {"detached": True}, "needs a ttl"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(arguments: tuple[Any, ...], options: dict[str, Any], says: str):
    with pytest.raises((ValueError, TypeError), match=says):
        GpuRoute(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"routes": []}, "without routes"),
        ({"routes": ["/work"]}, "routes are GpuRoute objects, not '/work'"),
        ({"routes": [GpuRoute("ASR")], "arbiter": "127.0.0.1:50051"}, "arbiter is an AsyncArbiter, or makes one"),
        ({"routes": [GpuRoute("ASR")], "buffer": "lots"}, "lots"),
    ],
)
def test_the_middleware_too(options: dict[str, Any], says: str):
    with pytest.raises((ValueError, TypeError), match=says):
        GpuLeaseMiddleware(None, **options)  # type: ignore[arg-type]
