"""Grafana's dashboards, and the page about them, from one definition."""

from pathlib import Path

from tools.dashboards.gpus import GPUS
from tools.dashboards.grafana import to_json
from tools.dashboards.leases import LEASES
from tools.dashboards.overview import OVERVIEW
from tools.dashboards.page import page
from tools.dashboards.work import WORK

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
PAGE = ROOT / "docs" / "dashboards.md"

DASHBOARDS = (OVERVIEW, WORK, LEASES, GPUS)


def dashboards() -> dict[Path, str]:
    """deploy/grafana/dashboards/*.json and docs/dashboards.md."""
    files = {FOLDER / f"{each.uid.removeprefix('gpu-arbiter-')}.json": to_json(each) for each in DASHBOARDS}
    return {**files, PAGE: page(DASHBOARDS)}
