"""Work that takes turns on the GPU, and is done on the CPU or left out where there is no GPU for it.

python tasks.py
"""

import asyncio

from gpuarbiter import ConsistencyCheck, Lease, Mismatch, current_lease, default_arbiter, gpu_task, torch_memory


def differs(mismatch: Mismatch) -> None:
    """Told where both come to another result; the caller got the GPU's."""
    print(f"{mismatch.task_type}: {mismatch.gpu_result} on the GPU, {mismatch.cpu_result} on the CPU")


check = ConsistencyCheck(rate=0.01, compare="allclose", on_mismatch=differs)


def features_on_cpu(samples: list[float]) -> list[float]:
    """The same work without a GPU."""
    return [each / 2 for each in samples]


@gpu_task("ASR", memory="6GiB", max_wait="200ms", busy_policy="FALLBACK_CPU", cpu=features_on_cpu, consistency=check)
def features(samples: list[float]) -> list[float]:
    """Each call has a lease of its own, and gives it back."""
    with torch_memory():  # the arbiter learns what it really took
        return half(samples)


def half(samples: list[float]) -> list[float]:
    """Anywhere below a task its lease is the current one."""
    lease = current_lease()
    lease.check()  # raises where the GPU was taken away meanwhile
    return [each * 0.5 for each in samples]


@gpu_task("SEMANTIC_REPAIR", busy_policy="SKIP", max_wait=0, on_skip=None)
def repair(text: str) -> str:
    """Left out, by returning None, when the GPU is in use."""
    return text.capitalize()


@gpu_task("TTS", memory="4GiB")
async def speak(text: str, *, lease: object = None) -> bytes:
    """Coroutine functions are tasks, too; who asks for `lease` gets it."""
    assert lease is current_lease()
    return text.encode()


def translated(lease: Lease) -> str:
    """For `run`, which needs no decorator."""
    return f"translated on {len(lease.gpus)} GPU"


def main() -> None:
    """Each of them once with the GPU, and some without."""
    print("features:", features([1.0, 3.0]))
    print("repaired:", repair("yes"))
    print("spoken:", asyncio.run(speak("hello")))
    arbiter = default_arbiter()
    print("run:", arbiter.run("NMT", translated, memory="4GiB"))
    with arbiter.lease("LLM", max_hold="1m"):  # now the GPU is in use
        print("features:", features([1.0, 3.0]), "on the CPU")
        print("repaired:", repair("yes"))
    print("compared:", check.counts.checked, "differed:", check.counts.mismatched)


if __name__ == "__main__":
    main()
