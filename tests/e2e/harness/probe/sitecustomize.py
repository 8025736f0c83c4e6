"""A window into an arbiter that a test started: with this folder in PYTHONPATH it tells, at SIGUSR1, what it has.

It writes JSON to the file that ARBITER_PROBE names: how often it was asked, how many asyncio tasks are not done, and
how many objects of the arbiter's own classes there are, by name. Python loads a module of this name by itself.
"""

import os
import signal

FILE_VARIABLE = "ARBITER_PROBE"


def _look_when_told(path: str) -> None:
    import asyncio
    import gc
    import itertools
    import json
    from collections import Counter
    from pathlib import Path

    asked = itertools.count(1)

    def look(*_: object) -> None:
        gc.collect()
        kinds = Counter(type(thing) for thing in gc.get_objects())
        own = {
            kind.__qualname__: count for kind, count in kinds.items() if str(kind.__module__).startswith("gpuarbiter_")
        }
        told = {"asked": next(asked), "tasks": len(asyncio.all_tasks()), "objects": own}
        draft = Path(path).with_suffix(".draft")
        draft.write_text(json.dumps(told))
        draft.replace(path)

    signal.signal(signal.SIGUSR1, look)


if os.environ.get(FILE_VARIABLE):
    _look_when_told(os.environ[FILE_VARIABLE])
