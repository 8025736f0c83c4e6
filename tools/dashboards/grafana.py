"""A dashboard as Grafana's JSON."""

import json
from string import ascii_uppercase

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, table
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from tools.dashboards import model
from tools.dashboards.looks import Builder, columns, styled
from tools.dashboards.variables import SOURCE, variables

TAG = "gpu-arbiter"
REFRESH = "5s"


def to_json(dashboard: model.Dashboard) -> str:
    """The text of its file."""
    built = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.question)
        .tags([TAG])
        .editable()
        .refresh(REFRESH)
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables(variables())
        .links(
            [
                builders.DashboardLink("GpuArbiter")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .include_vars(True)
                .keep_time(True)
            ]
        )
    )
    number = 0
    for row in dashboard.rows:
        number += 1
        built.with_row(builders.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built.with_panel(_panel(panel).id(number))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _panel(panel: model.Panel) -> Builder:
    builder = styled(panel.look)
    builder.title(panel.title).description(f"{panel.means}\n\n**What to do:** {panel.todo}").unit(panel.unit)
    builder.datasource(SOURCE).span(panel.width).height(panel.height)
    if panel.repeat:
        builder.repeat(panel.repeat).repeat_direction("h")
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        builder.with_target(_target(letter, query, panel.look))
        properties = _override(query)
        if properties and not isinstance(panel.look, model.Table):
            builder.override_by_query(letter, properties)
    if isinstance(builder, table.Panel):
        columns(builder, panel)
    return builder


def _target(letter: str, query: model.Query, look: model.Look) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expr.text).legend_format(query.legend)
    if isinstance(look, model.Table):
        return target.instant().format(prometheus_models.PromQueryFormat.TABLE)
    # The last value of a range may be one of long ago; what is shown as now is asked for as of now.
    over_time = isinstance(look, model.Lines) or (isinstance(look, model.Stat) and look.trend)
    return target.range() if over_time else target.instant()


def _override(query: model.Query) -> list[models.DynamicConfigValue]:
    set_to = models.DynamicConfigValue
    properties = []
    if query.second_axis:
        properties += [set_to("unit", query.second_axis), set_to("custom.axisPlacement", "right")]
        properties += [set_to("custom.lineStyle", {"fill": "dot", "dash": [0, 6]})]
    if query.limit:
        properties += [set_to("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}), set_to("custom.fillOpacity", 0)]
        properties += [set_to("custom.stacking", {"mode": "none", "group": "A"})]
    return properties
