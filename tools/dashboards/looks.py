"""How each kind of panel looks in Grafana."""

from collections.abc import Callable
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import bargauge, gauge, piechart, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import piechart as pie_models

from tools.dashboards import model

# What Grafana calls the columns of a legend.
_FIGURES = {"lastNotNull": "Last *", "max": "Max"}

Builder = stat.Panel | bargauge.Panel | gauge.Panel | timeseries.Panel | piechart.Panel | table.Panel


def _thresholds(steps: model.Steps) -> builders.ThresholdsConfig:
    made = [models.Threshold(value=value, color=color) for color, value in steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def _last() -> common_builders.ReduceDataOptions:
    return common_builders.ReduceDataOptions().calcs(["lastNotNull"])


def _by_thresholds() -> builders.FieldColor:
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


def _by_series() -> builders.FieldColor:
    # By name: a task keeps its colour from panel to panel.
    return builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)


def _stat(look: model.Stat) -> stat.Panel:
    words = {
        str(value): models.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, text, color) in enumerate(look.words)
    }
    panel = stat.Panel().reduce_options(_last()).thresholds(_thresholds(look.thresholds)).color_scheme(_by_thresholds())
    panel.graph_mode(common.BigValueGraphMode.AREA if look.trend else common.BigValueGraphMode.NONE)
    panel.color_mode(common.BigValueColorMode.BACKGROUND if words else common.BigValueColorMode.VALUE)
    if words:
        panel.mappings([models.ValueMap(options=words)])
    return panel.no_value(look.no_value) if look.no_value else panel


def _gauge(look: model.Gauge) -> gauge.Panel:
    panel = gauge.Panel().reduce_options(_last()).thresholds(_thresholds(look.thresholds)).min(0).max(look.most)
    return panel.color_scheme(_by_thresholds()).show_threshold_markers(True).decimals(1)


def _lines(look: model.Lines) -> timeseries.Panel:
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    legend.display_mode(common.LegendDisplayMode.TABLE).calcs(list(look.figures)).sort_by(
        _FIGURES[look.figures[0]]
    ).sort_desc(True)
    tooltip = (
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = timeseries.Panel().legend(legend).tooltip(tooltip).color_scheme(_by_series())
    panel.line_width(1).fill_opacity(40 if look.stacked else 5).show_points(common.VisibilityMode.NEVER)
    if look.bars:
        panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80)
    if look.stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if look.logarithmic:
        scale = common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        panel.scale_distribution(scale)
    else:
        panel.min(0)
    if look.most is not None:
        panel.max(look.most)
    if look.thresholds:
        panel.thresholds(_thresholds(look.thresholds))
        panel.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED))
    return panel


def _pie(look: model.Pie) -> piechart.Panel:
    del look
    legend = piechart.PieChartLegendOptions().show_legend(True).placement(common.LegendPlacement.RIGHT)
    legend.display_mode(common.LegendDisplayMode.TABLE)
    legend.values([pie_models.PieChartLegendValues.VALUE, pie_models.PieChartLegendValues.PERCENT])
    panel = piechart.Panel().pie_type(pie_models.PieChartType.DONUT).legend(legend).reduce_options(_last())
    return panel.color_scheme(_by_series())


def _bars(look: model.Bars) -> bargauge.Panel:
    del look
    panel = bargauge.Panel().reduce_options(_last()).orientation(common.VizOrientation.HORIZONTAL).min(0)
    return panel.display_mode(common.BarGaugeDisplayMode.BASIC).color_scheme(_by_series())


def _table(look: model.Table) -> table.Panel:
    del look
    return table.Panel().color_scheme(_by_thresholds()).show_header(True)


def columns(builder: table.Panel, panel: model.Panel) -> None:
    """One row for each label set, with the values of all queries in it."""
    assert isinstance(panel.look, model.Table)
    several = len(panel.queries) > 1
    values = [
        f"Value #{letter}" if several else "Value" for letter, _ in zip(ascii_uppercase, panel.queries, strict=False)
    ]
    legends = [query.legend for query in panel.queries]
    hidden = {"Time", *(value for value, legend in zip(values, legends, strict=True) if not legend)}
    builder.with_transformation(models.DataTransformerConfig("merge", options={}))
    options = {
        "excludeByName": dict.fromkeys(sorted(hidden), True),
        "indexByName": {name: place for place, name in enumerate((*panel.look.first, *values))},
        "renameByName": {value: legend for value, legend in zip(values, legends, strict=True) if legend},
    }
    builder.with_transformation(models.DataTransformerConfig("organize", options=options))
    for query in panel.queries:
        if query.unit:
            builder.override_by_name(query.legend, [models.DynamicConfigValue("unit", query.unit)])


_LOOKS: dict[type, Callable[[Any], Builder]] = {
    model.Stat: _stat,
    model.Gauge: _gauge,
    model.Lines: _lines,
    model.Bars: _bars,
    model.Pie: _pie,
    model.Table: _table,
}


def styled(look: model.Look) -> Builder:
    """A panel of this look, with nothing in it yet."""
    return _LOOKS[type(look)](look)
