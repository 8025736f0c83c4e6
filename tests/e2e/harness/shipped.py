"""What deploy/ ships for Prometheus and Alertmanager, at the pace of a test.

The rules and the configurations are the shipped ones. Changed are addresses, how often is scraped and evaluated, and
how long is waited before anything is told: each `for` of an alert, and each time of Alertmanager, is a sixtieth. The
windows inside of the expressions stay as they are.
"""

import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
_INTERVAL = "250ms"
_FACTOR = 1 / 60
_TIMES = ("group_wait", "group_interval", "repeat_interval")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def prometheus(folder: Path, arbiter: str, alertmanager: str) -> dict[str, Any]:
    """The configuration of Prometheus; the rules lie in the folder then."""
    config = _load(DEPLOY / "prometheus/prometheus.yml")
    config["global"] = {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL}
    (scraped,) = config["scrape_configs"]
    scraped["scrape_interval"] = _INTERVAL
    scraped["static_configs"] = [{"targets": [arbiter]}]
    (target,) = config["alerting"]["alertmanagers"]
    target["static_configs"] = [{"targets": [alertmanager]}]
    config["rule_files"] = [str(_hastened(path, folder)) for path in sorted(DEPLOY.glob("prometheus/rules/*.yml"))]
    return config


def groups() -> list[dict[str, Any]]:
    """The groups of all rules, as they are shipped."""
    return [group for path in sorted(DEPLOY.glob("prometheus/rules/*.yml")) for group in _load(path)["groups"]]


def alertmanager(webhook: str) -> dict[str, Any]:
    """The configuration of Alertmanager, with everybody at one address, each at the path that it has."""
    config = _load(DEPLOY / "alertmanager/alertmanager.yml")
    for route in (config["route"], *config["route"]["routes"]):
        route.update({name: _shorter(route[name]) for name in _TIMES if name in route})
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = re.sub(r"//[^/]+/", f"//{webhook}/", hook["url"])
    return config


def _hastened(path: Path, folder: Path) -> Path:
    rules = _load(path)
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = _shorter(rule["for"])
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(rules))
    return copy


def _shorter(duration: str) -> str:
    total = sum(int(count) * _MILLISECONDS[unit] for count, unit in re.findall(r"(\d+)(ms|[smhd])", duration))
    return f"{max(1, round(total * _FACTOR))}ms"


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded
