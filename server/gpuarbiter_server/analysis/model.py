"""The vocabulary of the analysis as frozen data: samples of GPUs, what they come to, and what is made of it.

Law: nothing here decides anything. Ratios are 0 to 1, memory is bytes; scores are 0 to 100. What is not known is None.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """How much a GPU is used, by its score."""

    IDLE = "idle"
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Verdict(Enum):
    """What is to be thought of it."""

    ACTIVE = "active"
    IDLE = "idle"
    SUSPICIOUS = "suspicious"


class Language(Enum):
    """What reasons and recommendations are written in."""

    ENGLISH = "en"
    CHINESE = "zh"


class Part(Enum):
    """What a score is made of."""

    UTILIZATION = "utilization"
    MEMORY_BANDWIDTH = "memory_bandwidth"
    MEMORY = "memory"
    POWER = "power"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a GPU did during one step of the window: means, and the highest utilization where it is known."""

    utilization: float | None = None
    memory_bandwidth: float | None = None
    memory_used_bytes: float | None = None
    power_watts: float | None = None
    sm_clock_hertz: float | None = None
    peak: float | None = None


class Holder(NamedTuple):
    """Who has the GPU.

    lease_id, client_id: empty where no lease is known. held: seconds, None where that is not known. gpus: how many the
    lease has.
    """

    namespace: str = ""
    pod: str = ""
    lease_id: str = ""
    held: float | None = None
    gpus: int = 1
    client_id: str = ""

    @property
    def name(self) -> str:
        """What people call it; empty where nothing is known."""
        return self.pod or self.client_id or self.lease_id

    @property
    def path(self) -> str:
        """The same, with its namespace in front."""
        return "/".join(filter(None, (self.namespace, self.name)))


@dataclass(frozen=True, slots=True)
class GpuWindow:
    """A GPU over the window: a sample for each step that has one, oldest first."""

    gpu_id: str
    hostname: str
    model_name: str
    samples: tuple[Sample, ...]
    # How many there would be if none were missing.
    steps: int
    # Seconds.
    step: float
    memory_total_bytes: float | None = None
    power_limit_watts: float | None = None
    # Who has it longest first; empty: nobody is known to.
    holders: tuple[Holder, ...] = ()

    def mean(self, name: str) -> float | None:
        """The mean of a figure over the samples that have it."""
        values = [value for sample in self.samples if (value := getattr(sample, name)) is not None]
        return sum(values) / len(values) if values else None


class Weights(NamedTuple):
    """What each part counts; only their proportions matter."""

    utilization: float = 0.5
    memory_bandwidth: float = 0.2
    memory: float = 0.2
    power: float = 0.1


class Thresholds(NamedTuple):
    """Scores below which a GPU is idle, low and normal; from the last on it is high."""

    idle: float = 10.0
    low: float = 20.0
    high: float = 70.0


@dataclass(frozen=True, slots=True)
class Score:
    """0 to 100; None where nothing that counts is known. missing: the parts that are not in it."""

    value: float | None
    missing: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """What a window looks like to whoever judges. All but the last three is of the utilization."""

    mean: float
    deviation: float
    highest: float
    # Its mean over the last quarter of the window less that over the first.
    trend: float
    recent: float
    # Steps, of `steps` with a figure.
    steps: int
    busy_steps: int
    quiet_steps: int
    # Steps since it last did something; all of them where it never did.
    quiet_since: int
    # Steps until it first did something.
    quiet_until: int
    # 0 to 1: how much of the window there are samples of.
    coverage: float
    memory: float | None
    # The least that was held at any time.
    memory_bytes: float
    power: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is thought of a GPU. confidence: 0 to 1; adjusted_score: the score if only what matters now counted."""

    verdict: Verdict
    confidence: float
    reason: str
    recommendation: str
    adjusted_score: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says of one GPU."""

    # Without its samples.
    gpu: GpuWindow
    # The means over the window.
    means: Sample
    score: float
    status: Status
    missing: tuple[Part, ...]
    # None where the utilization is not known.
    seen: Features | None
    # By the rules; whatever acts goes by this.
    judgement: Judgement
    # By a model, where it is asked and sure enough; for people alone.
    opinion: Judgement | None = None

    @property
    def shown(self) -> Judgement:
        """What people are shown first."""
        return self.judgement if self.opinion is None else self.opinion

    @property
    def holder(self) -> Holder:
        """Who has it longest; one without names where nobody is known to."""
        return self.gpu.holders[0] if self.gpu.holders else Holder()
