"""The rule of order in its plainest form: sort everyone who waits, walk down the list, once for each grant.

It shares nothing with the scheduler: no lanes, no gates, no parking, exact fractions for the order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gpuarbiter_server.core.model import Placement


@dataclass(frozen=True, slots=True)
class Wish:
    """A request, waiting or held."""

    name: str
    # Counts arrivals.
    number: int
    arrived_at: float
    priority: int
    candidates: tuple[str, ...]
    count: int = 1
    exclusive: bool = True
    memory: int = 0
    placement: Placement = Placement.LEAST_LOADED
    task_type: str = "ASR"
    client: str = "c"
    sequence: tuple[str, int] | None = None
    present: bool = True


def in_order(wishes: Sequence[Wish], now: float, aging: float) -> list[Wish]:
    """Highest effective priority first; the earlier arrival where it is equal."""

    def level(wish: Wish) -> Fraction:
        waited = Fraction(now) - Fraction(wish.arrived_at)
        return wish.priority + (waited / Fraction(aging) if aging else Fraction(0))

    return sorted(wishes, key=lambda wish: (-level(wish), wish.number))


def first_grantable(
    ordered: Sequence[Wish], gated: Callable[[Wish], bool], fits: Callable[[Wish, str], bool]
) -> tuple[Wish, list[str]] | None:
    """Who is to be granted next, and the GPUs to choose from; None when nobody can be.

    A gated one holds nobody back; the first other that lacks room holds back all behind it on its candidates.
    """
    kept: set[str] = set()
    for wish in ordered:
        if gated(wish):
            continue
        free = [gpu for gpu in wish.candidates if gpu not in kept and fits(wish, gpu)]
        if len(free) >= wish.count:
            return wish, free
        kept |= set(wish.candidates)
    return None


class NaiveArbiter:
    """Leases and waiting requests on GPUs that are known by their size alone."""

    def __init__(
        self,
        sizes: dict[str, int],
        *,
        aging: float = 1.0,
        per_client: int = 0,
        per_task: dict[str, int] | None = None,
    ) -> None:
        self.sizes = sizes
        self.numbers = {key: number for number, key in enumerate(sizes)}
        self.aging = aging
        self.per_client = per_client
        self.per_task = per_task or {}
        self.waiting: dict[str, Wish] = {}
        self.held: dict[str, tuple[Wish, tuple[str, ...]]] = {}
        self.cordoned: set[str] = set()
        self.turn = 0

    def settle(self, now: float) -> None:
        """Grants until nothing can be granted."""
        while found := first_grantable(
            in_order(list(self.waiting.values()), now, self.aging), self.is_gated, self.fits
        ):
            wish, free = found
            free.sort(key=lambda key: self._preference(wish, key))
            chosen = tuple(free[: wish.count])
            del self.waiting[wish.name]
            self.held[wish.name] = (wish, chosen)
            self.turn = self.numbers[chosen[-1]] + 1

    def is_gated(self, wish: Wish) -> bool:
        """Whether anything but room keeps it back."""
        holders = [holder for holder, _ in self.held.values()]
        in_service = [key for key in wish.candidates if key not in self.cordoned]
        task_limit = self.per_task.get(wish.task_type, 0)
        return (
            not wish.present
            or len(in_service) < wish.count
            or any(self._goes_before(other, wish) for other in [*holders, *self.waiting.values()])
            or 0 < task_limit <= sum(holder.task_type == wish.task_type for holder in holders)
            or 0 < self.per_client <= sum(holder.client == wish.client for holder in holders)
        )

    def fits(self, wish: Wish, key: str) -> bool:
        """Whether there is room on a GPU."""
        there = self._on(key)
        if key in self.cordoned or any(holder.exclusive for holder in there) or (there and wish.exclusive):
            return False
        return wish.memory <= self._room(key)

    def _goes_before(self, other: Wish, wish: Wish) -> bool:
        if other.sequence is None or wish.sequence is None:
            return False
        same = (other.client, other.task_type, other.sequence[0]) == (wish.client, wish.task_type, wish.sequence[0])
        return same and other.sequence[1] < wish.sequence[1]

    def _on(self, key: str) -> list[Wish]:
        return [holder for holder, keys in self.held.values() if key in keys]

    def _room(self, key: str) -> int:
        there = self._on(key)
        if any(holder.exclusive and not holder.memory for holder in there):
            return 0
        return self.sizes[key] - sum(holder.memory for holder in there)

    def _preference(self, wish: Wish, key: str) -> tuple[int, ...]:
        number = self.numbers[key]
        match wish.placement:
            case Placement.BEST_FIT:
                return (self._room(key), number)
            case Placement.ROUND_ROBIN:
                return (int(number < self.turn), number)
            case _:
                return (len(self._on(key)), -self._room(key), number)
