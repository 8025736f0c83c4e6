"""What a window looks like to the rules: its level, its spread, its trend, its bursts, and what was held meanwhile.

Law: pure; ratios are 0 to 1.
"""

from statistics import fmean, pstdev

from gpuarbiter_server.analysis.model import Features, GpuWindow, Part
from gpuarbiter_server.analysis.scoring import parts

# A step with more than this did something; with more than that it worked in earnest.
WORKING = 0.05
BUSY = 0.5
# A peak that high within a step counts as a burst, even where the mean of the step is low.
BURST = 0.7


def features(gpu: GpuWindow) -> Features | None:
    """None where the utilization is not known: then there is nothing to judge by."""
    pairs = [(s.utilization, max(s.utilization, s.peak or 0.0)) for s in gpu.samples if s.utilization is not None]
    if not pairs:
        return None
    levels = [level for level, _ in pairs]
    quarter = max(1, len(levels) // 4)
    recent = fmean(levels[-quarter:])
    working = [index for index, (level, peak) in enumerate(pairs) if level > WORKING or peak > BUSY]
    known = parts(gpu)
    held = [sample.memory_used_bytes for sample in gpu.samples if sample.memory_used_bytes is not None]
    return Features(
        mean=fmean(levels),
        deviation=pstdev(levels),
        highest=max(peak for _, peak in pairs),
        trend=recent - fmean(levels[:quarter]),
        recent=recent,
        steps=len(pairs),
        busy_steps=sum(level > BUSY or peak > BURST for level, peak in pairs),
        quiet_steps=len(pairs) - len(working),
        quiet_since=len(pairs) - 1 - working[-1] if working else len(pairs),
        quiet_until=working[0] if working else len(pairs),
        coverage=min(1.0, len(pairs) / gpu.steps),
        memory=known[Part.MEMORY],
        memory_bytes=min(held, default=0.0),
        power=known[Part.POWER],
    )
