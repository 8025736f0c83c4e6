"""`make bench`: runs every measurement, prints one table, and writes it to bench/results.md.

--quick only shows that everything runs; its figures mean nothing and are not written. With --only it runs that
module and draws its picture, and does not write the table.
"""

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

from bench import (
    analysis,
    crowds,
    decisions,
    durability,
    flights,
    gpus,
    handoffs,
    loads,
    locks,
    machine,
    package,
    pairs,
    pipeline,
    sampling,
    speech,
    telemetry,
    watchers,
)

# In the order of the table.
_MODULES = {
    module.__name__.removeprefix("bench."): module
    for module in (
        pairs,
        flights,
        loads,
        locks,
        handoffs,
        decisions,
        crowds,
        watchers,
        sampling,
        durability,
        gpus,
        speech,
        pipeline,
        package,
        telemetry,
        analysis,
    )
}
_RESULTS = Path(__file__).with_name("results.md")
_HEADINGS = ("measure", "floor", "arbiter", "ratio (median of rounds)")


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _head() -> str:
    return (
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {machine.described()}; written by `make bench`.\n\n"
        "The floor is a bare grpc.aio + uvloop server that answers the same messages and does nothing else. CPU is "
        "the server process's own, by the scheduler's accounting; times are taken at Python clients on uvloop, unless "
        "a row says otherwise. Rounds are interleaved, so that both sides of a ratio saw the same machine. Unless a "
        "row says otherwise there is one configured exclusive GPU, a journal at full durability and metrics, and in "
        "the rows P1 to P8 and P11 one trace of a hundred goes to a receiver. Telemetry is measured with the journal "
        "in memory, so that the disk does not stand between the figures; what is in process there is CPU of this "
        "process. A row with a target says whether it is met."
    )


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", choices=_MODULES, help="may be said several times")
    options = parser.parse_args()
    rows = []
    for name in options.only or _MODULES:
        began = time.monotonic()
        found = _MODULES[name].rows(quick=options.quick)
        rows += found
        # As it comes, for whoever does not want to wait for the rest.
        print(f"{name}: {time.monotonic() - began:.0f} s", *map(" | ".join, found), sep="\n  ", file=sys.stderr)
    table = _table(rows)
    print(table)
    if not options.quick and not options.only:
        pictures = "\n".join(f"![{path.stem}]({path.name})" for path in sorted(_RESULTS.parent.glob("*.svg")))
        _RESULTS.write_text(f"# Measurements\n\n{_head()}\n\n{table}\n\n{pictures}\n")
        print(f"written to {_RESULTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
