"""The model that judges GPUs beside the rules: how it is set up, and where the key of its server comes from.

Law: the key is read from the environment or from a file, each time anew, and kept by nobody but who asks the server.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from gpuarbiter_server.analysis.asking import Asker, KeyTroubleError, ModelSettings
from gpuarbiter_server.analysis.model import Language, Thresholds
from gpuarbiter_server.analysis.opinions import Opinions
from gpuarbiter_server.config.analysis import AnalysisSection
from gpuarbiter_server.config.sources import AI_API_KEY
from gpuarbiter_server.runtime.clock import monotonic

# The first that is set counts; the second is what earlier analyzers had.
KEY_VARIABLES = (AI_API_KEY, "AI_API_KEY")
_LONGEST_KEY = 4096


def opinions(section: AnalysisSection, *, count: Callable[[str], None]) -> Opinions:
    """Those of the server that is configured at the start; of none where none is."""
    url, file = section.ai.url, section.ai.key_file
    asker = Asker(url, key=lambda: key(os.environ, file), clock=monotonic) if url else None
    return Opinions(asker, model_settings(section), clock=monotonic, count=count)


def model_settings(section: AnalysisSection) -> ModelSettings:
    """What can change while it runs."""
    ai = section.ai
    return ModelSettings(
        enabled=ai.enabled,
        model=ai.model,
        all_gpus=ai.ask_about == "all",
        threshold=ai.threshold,
        timeout=ai.timeout,
        max_workers=ai.max_workers,
        max_requests_per_minute=ai.max_requests_per_minute,
        max_requests_per_day=ai.max_requests_per_day,
        max_answer_tokens=ai.max_answer_tokens,
        cache=ai.cache,
        language=Language(section.language),
        thresholds=Thresholds(**section.thresholds.model_dump()),
    )


def key(environ: Mapping[str, str], file: str) -> str:
    """The key of the server; empty where there is none. KeyTroubleError where it cannot be one, or not be read."""
    found = next((environ[name] for name in KEY_VARIABLES if environ.get(name, "").strip()), "")
    where = "the key in the environment"
    if not found and file:
        where = f"the key in {file}"
        try:
            with Path(file).open(encoding="ascii") as opened:
                found = opened.read(_LONGEST_KEY + 1)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text of ASCII characters"
            raise KeyTroubleError(f"{where} cannot be read: {why}") from None
        if not found.strip():
            raise KeyTroubleError(f"{where} cannot be read: the file is empty")
    found = found.strip()
    if len(found) > _LONGEST_KEY or not re.fullmatch(r"[!-~]*", found):
        raise KeyTroubleError(f"{where} is none: expected one line of printable ASCII characters without spaces")
    return found
