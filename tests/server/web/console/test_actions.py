"""What an operator does over HTTP is what the admin API does, with its events; and nobody else does it."""

from typing import Any

import pytest

from gpuarbiter.v1 import admin_pb2
from support.messages import acquire
from support.server import serving

from .consoles import TOKEN, served

ACTS = ("drain", "resume", "revoke", "sign-in")


async def test_a_gpu_is_drained_and_resumed_with_the_reason_in_the_history():
    async with serving(gpus=2) as arbiter, served(arbiter) as site:
        answer = await site.post("/console/api/drain", {"gpus": ["gpu:0"], "reason": "a new fan"})
        said = "gpu:0 is drained: nothing new is granted there. Nobody holds it."
        assert (answer.status, answer.json()) == (200, {"message": said})
        assert [gpu.cordoned for gpu in (await arbiter.snapshot()).gpus] == [True, False]
        answer = await site.post("/console/api/resume", {"all": True})
        assert (answer.status, answer.json()) == (200, {"message": "every GPU is in service again."})
        assert not any(gpu.cordoned for gpu in (await arbiter.snapshot()).gpus)
        drained, resumed = await arbiter.events()
        assert (drained.type, drained.gpus, drained.detail) == (admin_pb2.EVENT_TYPE_DRAINED, ["gpu:0"], "a new fan")
        assert (resumed.type, resumed.gpus) == (admin_pb2.EVENT_TYPE_RESUMED, ["gpu:0", "gpu:1"])


async def test_holders_are_left_alone_or_asked_to_yield():
    async with serving(gpus=2) as arbiter, served(arbiter) as site:
        call, _ = await arbiter.granted(acquire(gpu={"candidates": ["gpu:0"]}))
        answer = await site.post("/console/api/drain", {"gpus": ["gpu:0", "gpu:1"]})
        assert answer.json()["message"] == "gpu:0, gpu:1 are drained: nothing new is granted there. 1 lease goes on."
        answer = await site.post("/console/api/drain", {"all": True, "grace_seconds": 30})
        assert answer.json()["message"].endswith("The holder of 1 lease is asked to yield, and revoked after 30 s.")
        asked = (await call.read()).yield_requested
        assert asked.grace.seconds == 30
        call.cancel()


async def test_a_lease_is_revoked_at_once_or_after_its_grace():
    async with serving() as arbiter, served(arbiter) as site:
        call, lease = await arbiter.granted(acquire())
        asked: dict[str, Any] = {"lease_id": lease.lease_id, "reason": "it is stuck"}
        answer = await site.post("/console/api/revoke", {**asked, "grace_seconds": 20})
        assert answer.json()["message"] == "The holder is asked to yield; the lease ends in 20 s at the latest."
        assert (await call.read()).yield_requested.detail == "it is stuck"
        answer = await site.post("/console/api/revoke", asked)
        assert answer.json()["message"] == "The lease is ended."
        assert (await call.read()).ended.detail == "it is stuck"
        answer = await site.post("/console/api/revoke", asked)
        assert (answer.status, answer.json()["message"]) == (200, "The lease had ended already.")
        assert (await arbiter.events())[-1].detail == "OPERATOR after OPERATOR: it is stuck"


async def test_the_token_can_be_tried():
    async with serving() as arbiter, served(arbiter) as site:
        assert (await site.post("/console/api/sign-in", {})).status == 200
        assert (await site.post("/console/api/sign-in", {}, token="another")).status == 403


@pytest.mark.parametrize("act", ACTS)
async def test_nobody_does_anything_without_the_token_or_from_elsewhere(act: str):
    said = {"gpus": ["gpu:0"]}
    async with serving() as arbiter, served(arbiter) as site:
        path = f"/console/api/{act}"
        without = await site.post(path, said, token="")
        assert (without.status, without.headers["www-authenticate"]) == (401, 'Bearer realm="gpu-arbiter"')
        assert "gpu-arbiterd token" in without.json()["error"]
        assert (await site.post(path, said, token=TOKEN + "x")).status == 403
        assert (await site.post(path, said, "Origin: http://evil.example")).status == 403
        assert (await site.post(path, said, "Sec-Fetch-Site: cross-site")).status == 403
        assert (await site.get(path)).status == 405
        assert not any(gpu.cordoned for gpu in (await arbiter.snapshot()).gpus)
        assert await arbiter.events() == []


@pytest.mark.parametrize(
    ("act", "said", "status", "why"),
    [
        ("drain", {}, 422, "either gpus or all must be given, not both"),
        ("drain", {"gpus": ["gpu:0"], "all": True}, 422, "either gpus or all must be given, not both"),
        ("drain", {"gpus": ["gpu:9"]}, 404, "no GPU is named 'gpu:9'; there are gpu:0"),
        ("drain", {"gpus": "gpu:0"}, 422, "gpus: Input should be a valid list"),
        ("drain", {"gpus": [""]}, 422, "gpus.0: String should have at least 1 character"),
        ("drain", {"gpus": ["gpu:0"], "reason": "x" * 1025}, 422, "reason: String should have at most 1024 characters"),
        (
            "drain",
            {"gpus": ["gpu:0"], "grace_seconds": -1},
            422,
            "grace_seconds: Input should be greater than or equal",
        ),
        ("drain", {"gpus": ["gpu:0"], "grace_seconds": 1e9}, 422, "grace_seconds: Input should be less than or equal"),
        ("drain", '{"gpus": ["gpu:0"], "grace_seconds": NaN}', 422, "grace_seconds: Input should be"),
        ("drain", {"gpus": ["gpu:0"] * 65}, 422, "gpus: List should have at most 64 items"),
        ("drain", {"gpus": ["gpu:0"], "force": True}, 422, "force: Extra inputs are not permitted"),
        ("resume", {"all": "yes"}, 422, "all: Input should be a valid boolean"),
        ("revoke", {}, 422, "lease_id: Field required"),
        ("revoke", {"lease_id": "nobody's"}, 404, 'no lease or request is named "nobody\'s"'),
        ("revoke", "[]", 422, "write a JSON object"),
        ("revoke", "{", 422, "the body is no JSON"),
    ],
)
async def test_what_is_asked_for_wrongly_is_refused_with_what_is_wrong(act: str, said: Any, status: int, why: str):
    async with serving() as arbiter, served(arbiter) as site:
        answer = await site.post(f"/console/api/{act}", said)
        assert answer.status == status
        assert why in answer.json()["error"]
        assert await arbiter.events() == []
