"""The order of the queue, and the place of fairness beyond it (quantum, quota, preemption, backfill).

Effective priority rises by one level for each `aging` seconds of waiting. With one rate for all the
order of two tickets never changes over time, so a key fixed at the start is enough:

    priority + (now - enqueue_time) / aging   orders as   priority - enqueue_time / aging

The bound: a ticket of priority p lets those of a higher priority q pass only while they arrive within
(q - p) x aging seconds after it; after 100 x aging seconds nobody passes it any more.
"""


def order_key(priority: int, enqueue_time: float, aging: float) -> float:
    """The place in the queue; smaller is served first. aging: seconds a level; 0: no aging."""
    return (enqueue_time / aging if aging else 0.0) - priority
