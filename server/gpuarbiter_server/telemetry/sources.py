"""What a scrape reads: where its figures come from, and what its labels can be."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gpuarbiter_server.core.census import Census
from gpuarbiter_server.telemetry import catalogue as cat


class TaskType(NamedTuple):
    """What is shown of a task type's policy, in seconds; 0: there is none."""

    max_hold: float = 0.0
    wait_objective: float = 0.0
    hold_objective: float = 0.0


_NOTHING = TaskType()


@dataclass(frozen=True, slots=True)
class Known:
    """What the labels can be, and what of the configuration is shown."""

    gpus: tuple[str, ...]
    # By name; what is not configured goes by `other`.
    tasks: Mapping[str, TaskType]
    other: TaskType = _NOTHING
    namespaces: frozenset[str] = frozenset()
    # Whether each live lease is shown by its id.
    lease_info: bool = False

    @property
    def anywhere(self) -> tuple[str, ...]:
        """The label of a request that is not bound to a GPU; where there is but one, it is bound to that."""
        return self.gpus if len(self.gpus) == 1 else (cat.ANY_GPU,)

    def by_task(self, figure: Callable[[TaskType], float]) -> dict[tuple[str, ...], float | None]:
        """A figure of every policy by the task's label; None where there is none."""
        every = {**self.tasks, cat.OTHER: self.other}
        return {(name,): figure(task) or None for name, task in every.items()}

    def task(self, name: str) -> str:
        """A task type as a label."""
        return name if name in self.tasks else cat.OTHER

    def namespace(self, name: str) -> str:
        """A holder's namespace as a label."""
        return name if name in self.namespaces else cat.OTHER

    def values(self, label: cat.Label) -> Iterable[str]:
        """All values of a label that are known."""
        match label.values:
            case cat.Values.GPUS:
                return self.gpus
            case cat.Values.GPUS_OR_ANY:
                return (*self.gpus, cat.ANY_GPU)
            case cat.Values.TASKS:
                return (*self.tasks, cat.OTHER)
            case cat.Values.NAMESPACES:
                return (*self.namespaces, cat.OTHER)
            case tuple():
                return label.values
            case _:
                return ()


class Analysed(NamedTuple):
    """What the last analysis says of a GPU. Scores are 0 to 100; confidence is 0 to 1."""

    gpu: str
    namespace: str
    pod: str
    score: float
    status: str
    judgement: str
    confidence: float
    adjusted_score: float


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures of a scrape come from."""

    version: str
    census: Callable[[], Census]
    # Seconds since 1970.
    wall: Callable[[], float]
    # NVML calls that failed, by call and error.
    nvml_errors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    spans_dropped: Callable[[], int] = lambda: 0
    analysed: Callable[[], Iterable[Analysed]] = tuple
