"""The page about the dashboards, from the same definitions."""

from collections.abc import Iterable, Iterator

from tools.dashboards.model import Dashboard, Panel

_INTRODUCTION = """\
<!-- Generated from the definitions of the dashboards by `make proto`; edits here are lost. -->
# Dashboards

Four dashboards for Grafana lie in `deploy/grafana/dashboards`; `deploy/grafana/README.md` says how to mount them. They
ask a Prometheus that scrapes `/metrics` of one arbiter or of many.

Each panel says in its description (the `i` in its corner) what it means and what to do about it. At the top: the
data source, the Prometheus job, the instances (machines), GPUs and tasks that are shown. A choice of GPUs or tasks
narrows the panels whose metrics know them, and leaves the others as they are. All dashboards link to each other and
keep that choice, and the time.

- *In the time shown* is the time range at the top right.
- Shares are 0 while nothing happens; times and quantiles are empty then.
- Times that reach from milliseconds to minutes are drawn on a logarithmic axis.
- The gpu `any` is in every choice: requests that wait for any GPU wait for the chosen one, too.
- Yield requests stand under Leases and queue. There is no dashboard of quotas or of utilization scores: the arbiter
  has neither yet.
"""


def page(dashboards: Iterable[Dashboard]) -> str:
    """docs/dashboards.md."""
    return "\n".join([_INTRODUCTION, *(line for each in dashboards for line in _section(each))])


def _section(dashboard: Dashboard) -> Iterator[str]:
    yield f"## {dashboard.title.partition(' / ')[2]}"
    yield ""
    yield f"*{dashboard.question}* Address: `/d/{dashboard.uid}`."
    yield ""
    yield "| Row | Panel | What it means | What to do | Metrics |"
    yield "|---|---|---|---|---|"
    for row in dashboard.rows:
        for panel in row.panels:
            yield f"| {row.title} | {panel.title} | {panel.means} | {panel.todo} | {_metrics(panel)} |"
    yield ""


def _metrics(panel: Panel) -> str:
    found = dict.fromkeys(
        name for query in panel.queries for name in sorted(metric.full_name for metric in query.expr.metrics) or ["up"]
    )
    return ", ".join(f"`{name}`" for name in found)
