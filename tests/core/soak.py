"""Many random worlds, on every core: python -m core.soak [WORLDS] [--first SEED] [--seconds TIME] [--mutations]

Prints what was lived through, and the seeds of worlds in which an invariant broke; each is replayed with
`python -m core.simulation SEED`. --mutations plants each known bug and tells after how many worlds it shows.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from core.mutations import MUTATIONS, planted
from core.simulation import Life, simulate

BATCH = 50
# A planted bug that shows in none of so many worlds is not caught.
MOST_WORLDS = 2000


def live(first: int) -> tuple[Life, list[tuple[int, str]]]:
    """A batch of worlds, and those that broke."""
    life, broken = Life(), []
    for seed in range(first, first + BATCH):
        try:
            life += simulate(seed)
        except Exception as error:  # noqa: BLE001 -- whatever it is, this seed shows it
            broken.append((seed, f"{type(error).__name__}: {str(error)[:200]}"))
    return life, broken


def _quick() -> None:
    # Worlds are thrown away whole, now and then.
    gc.set_threshold(100_000, 50, 100)


def _until(seconds: float, batches: Iterator[int]) -> Iterator[int]:
    end = time.monotonic() + seconds
    for batch in batches:
        if time.monotonic() > end:
            return
        yield batch


def soak(worlds: int, first: int, seconds: float) -> int:
    """Lives through so many worlds, or as many as the time allows; the exit code."""
    began = time.monotonic()
    life, broken = Life(), []
    batches = _until(seconds, iter(range(first, first + worlds, BATCH)))
    with multiprocessing.Pool(initializer=_quick) as pool:
        for number, (part, bad) in enumerate(pool.imap_unordered(live, batches)):
            life += part
            broken += bad
            for seed, what in bad:
                print(f"seed {seed}: {what}", flush=True)
            if number % 100 == 99:
                print(f"{life.worlds:,} worlds, {life.steps:,} steps …", file=sys.stderr, flush=True)
    spent = time.monotonic() - began
    print(
        f"{life.worlds:,} worlds, {life.steps:,} steps ({life.events:,} events), {life.granted:,} grants, "
        f"{life.crashes:,} crashes with {life.recovered:,} leases recovered, {life.journal_failures:,} failures of the "
        f"journal; {len(broken)} broken; {spent:.0f} s on {os.cpu_count()} cores, {life.steps / spent:,.0f} steps/s"
    )
    return 1 if broken else 0


def mutations() -> int:
    """Plants every known bug; the exit code."""
    missed = 0
    for name, plant in MUTATIONS.items():
        with planted(plant):
            seed, what = first_to_show(MOST_WORLDS)
        missed += seed is None
        print(f"{name}: " + ("not caught" if seed is None else f"caught after {seed + 1} worlds ({what})"), flush=True)
    return 1 if missed else 0


def first_to_show(worlds: int) -> tuple[int | None, str]:
    """The first world, counted from 0, in which something breaks, and what; None: none."""
    for seed in range(worlds):
        try:
            simulate(seed)
        except Exception as error:  # noqa: BLE001 -- a bug may show in any way
            return seed, f"{type(error).__name__}: {str(error)[:80]}"
    return None, ""


def main() -> int:
    """Parses the arguments."""
    parser = argparse.ArgumentParser(prog="python -m core.soak", description=__doc__)
    parser.add_argument("worlds", nargs="?", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begins no more worlds after this long")
    parser.add_argument("--mutations", action="store_true", help="plants each known bug instead")
    wanted = parser.parse_args()
    return mutations() if wanted.mutations else soak(wanted.worlds, wanted.first, wanted.seconds)


if __name__ == "__main__":
    sys.exit(main())
