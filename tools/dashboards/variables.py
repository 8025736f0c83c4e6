"""The variables of every dashboard: where from, which arbiters, which GPUs, which tasks."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from gpuarbiter_server.telemetry import catalogue as cat
from gpuarbiter_server.telemetry.catalogue import Metric
from tools.dashboards.queries import UP

# Whatever the variable says: no data source has its name in a dashboard.
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

_ALL = models.VariableOption(text="All", value="$__all", selected=True)
_IN_JOB = '{job=~"$job"}'
_IN_INSTANCE = '{job=~"$job", instance=~"$instance"}'


def variables() -> list[Builder[models.VariableModel]]:
    """In the order in which they depend on each other."""
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return [
        source,
        # Without a value of its own for "All": `up` knows other jobs, too.
        _values("job", "Job", f"{cat.BUILD_INFO.full_name}, job", all_value=None),
        # From `up`, so that an arbiter that is down can still be chosen.
        _values("instance", "Instance", f"{UP}{_IN_JOB}, instance"),
        _values("gpu", "GPU", _labels_of(cat.GPU_INFO, "gpu")),
        _values("task", "Task", _labels_of(cat.LEASES, "task")),
    ]


def _labels_of(metric: Metric, label: str) -> str:
    if label not in metric.label_names:
        raise ValueError(f"{metric.full_name} has no label {label}")
    return f"{metric.full_name}{_IN_INSTANCE}, {label}"


def _values(name: str, label: str, of: str, all_value: str | None = ".*") -> builders.QueryVariable:
    query: dict[str, object] = {"query": f"label_values({of})", "refId": f"variable-{name}"}
    variable = builders.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    variable.multi(True).include_all(True).current(_ALL)
    return variable if all_value is None else variable.all_value(all_value)
