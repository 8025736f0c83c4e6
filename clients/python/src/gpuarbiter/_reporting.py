"""What a with-block tells about its work when its body said nothing itself."""

import dataclasses
from datetime import timedelta

from gpuarbiter._values import WorkReport, WorkResult


def report_of(error: BaseException | None, held: timedelta) -> WorkReport:
    """The report for a body that ended with `error` (None: by itself) after `held`."""
    return WorkReport(result=_result_of(error), duration=held)


def with_peak(report: WorkReport | None, peak_bytes: int) -> WorkReport | None:
    """The report with the peak that was measured on the way, where it names none itself."""
    if not peak_bytes:
        return report
    if report is None:
        return WorkReport(peak_memory=peak_bytes)
    return report if report.peak_memory else dataclasses.replace(report, peak_memory=peak_bytes)


def _result_of(error: BaseException | None) -> WorkResult:
    if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
        return "OK"
    # By name: neither torch nor cupy is imported for the sake of their exceptions.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "SimulatedOutOfMemory"}:
        return "OUT_OF_MEMORY"
    if "CancelledError" in names or isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return "CANCELLED"
    return "FAILED"
