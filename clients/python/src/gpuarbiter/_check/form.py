"""What an arbiter shows over HTTP, whoever uses it: health, the page of metrics and its form."""

from collections.abc import Callable, Iterator

from gpuarbiter._check.lines import Line, Status, judged, listed
from gpuarbiter._check.page import PREFIX, Page, Unreadable
from gpuarbiter._check.site import Answer, Site
from gpuarbiter._errors import ArbiterUnavailable

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_ABSENT = "/gpu-arbiter-check/no-such-path"
_LEAST_FAMILIES = 25


class Form:
    """The lines about the form. `readable`: there is a page with figures to look at."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.readable = False

    def lines(self) -> Iterator[Line]:
        """Every line; those about a page that is not there are left out.

        Raises:
            ArbiterUnavailable: nothing listens there.
        """
        health = self._site.ask("/healthz")
        if health.problem:
            raise ArbiterUnavailable(f"{self._site.base} is out of reach: {health.problem}", code="UNAVAILABLE")
        healthy = (health.status, health.body) == (200, b"OK")
        yield judged("/healthz is 200 OK", healthy, f"{health.status} {health.body[:40]!r}")
        absent = self._site.ask(_ABSENT)
        yield judged("an unknown path is 404", absent.status == 404, absent.said)  # noqa: PLR2004 -- not found
        classic = self._site.ask("/metrics")
        if healthy and classic.status == 404:  # noqa: PLR2004 -- not found
            yield Line("/metrics", Status.FAIL, "404: the metrics are switched off (telemetry.metrics: false)")
            return
        yield judged("/metrics to GET", _is(classic, CLASSIC), classic.said)
        head = self._site.ask("/metrics", method="HEAD")
        yield judged("/metrics to HEAD", _is(head, CLASSIC), head.said)
        yield from self._classic(classic)
        yield from self._openmetrics()

    def _classic(self, answer: Answer) -> Iterator[Line]:
        try:
            page = Page(answer.body)
        except Unreadable as why:
            yield Line("the text can be read", Status.FAIL, str(why))
            return
        with_samples = [family for family in page.families if family.samples]
        yield judged("the text can be read", with_samples, f"{sum(1 for _ in page.samples)} samples")
        yield judged(
            f"at least {_LEAST_FAMILIES} families",
            len(with_samples) >= _LEAST_FAMILIES,
            f"{len(with_samples)} with samples",
        )
        yield _none("HELP and TYPE of every sample", page.without_help_or_type())
        yield _none(f"our prefix only ({PREFIX})", _names(page, lambda name: not name.startswith(PREFIX)))
        yield _none("no series twice", page.twice())
        yield _none("no _created", _names(page, _is_created))
        self.readable = True

    def _openmetrics(self) -> Iterator[Line]:
        answer = self._site.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
        yield judged("OpenMetrics when asked for", _is(answer, OPENMETRICS), answer.said)
        ends = answer.body.endswith(b"# EOF\n")
        yield judged("OpenMetrics ends in # EOF", ends, f"{answer.body[-20:]!r}")
        try:
            page = Page(answer.body, openmetrics=True)
        except Unreadable as why:
            yield Line("OpenMetrics can be read", Status.FAIL, str(why))
        else:
            yield judged("OpenMetrics can be read", page.families, f"{len(page.families)} families")
            yield _none("OpenMetrics: HELP and TYPE", page.without_help_or_type())
            yield _none("OpenMetrics: no _created", _names(page, _is_created))


def _is(answer: Answer, content_type: str) -> bool:
    return (answer.status, answer.content_type) == (200, content_type)


def _none(check: str, offenders: list[str]) -> Line:
    return judged(check, not offenders, listed(offenders) or "no exception")


def _names(page: Page, condition: Callable[[str], bool]) -> list[str]:
    return sorted({sample.name for sample in page.samples if condition(sample.name)})


def _is_created(name: str) -> bool:
    return name.endswith("_created")
