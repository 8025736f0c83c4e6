"""Scenarios as files: read, checked as a whole, and refused with the place and the key that is wrong.

Law: what a scenario says is either understood or an error; nothing in it is skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from conformance import steps
from conformance.expectations import Strict

FOLDER = Path(__file__).with_name("scenarios")


class Actor(Strict):
    """A client. Actors with one identity are one client to the arbiter; by default each is its own."""

    identity: str | None = None
    through: Literal["direct", "socket", "proxy", "nowhere"] = "direct"
    own_process: bool = False
    on_unavailable: Literal["fail", "proceed"] | None = None


class Head(Strict):
    """A scenario without its steps."""

    title: str
    # Settings of the arbiter, as in its configuration file.
    arbiter: dict[str, Any] = Field(default_factory=dict)
    actors: dict[str, Actor]
    # Clients that do not pass yet, by name, each with the reason: their runs must fail.
    known_failures: dict[str, str] = Field(default_factory=dict)
    steps: list[Any] = Field(min_length=1)


@dataclass(frozen=True)
class Scenario:
    """One story, for every client."""

    name: str
    head: Head
    steps: tuple[steps.Step, ...]

    @property
    def restarts(self) -> bool:
        """The arbiter dies in it: it needs one of its own, with a journal."""
        return any(isinstance(step, steps.Arbiter) for step in self.steps)


class ScenarioError(ValueError):
    """What is wrong with a scenario, line by line."""


def load_all(folder: Path = FOLDER) -> list[Scenario]:
    """Every scenario, in the order of their names."""
    return [load(path.stem, path.read_text()) for path in sorted(folder.glob("*.yaml"))]


def load(name: str, text: str) -> Scenario:
    """A scenario of its text.

    Raises:
        ScenarioError: it says something that is not understood.
    """
    try:
        head = Head.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise ScenarioError("\n".join(_told(name, error, Head))) from error
    made: list[steps.Step] = []
    wrong: list[str] = []
    for number, raw in enumerate(head.steps, start=1):
        try:
            made.append(_step(raw))
        except (ScenarioError, ValidationError) as error:
            place = f"{name}, step {number}"
            if isinstance(error, ValidationError):
                ((verb, _),) = raw.items()
                wrong += _told(f"{place}, {verb}", error, steps.VERBS[verb])
            else:
                wrong.append(f"{place}: {error}")
    scenario = Scenario(name, head, tuple(made))
    wrong += [] if wrong else _dangling(scenario)
    if wrong:
        raise ScenarioError("\n".join(wrong))
    return scenario


def _step(raw: Any) -> steps.Step:
    if not isinstance(raw, dict) or len(raw) != 1:
        raise ScenarioError(f"{raw!r} is no step; write one verb with its body")
    ((verb, body),) = raw.items()
    if verb not in steps.VERBS:
        raise ScenarioError(f"{verb!r} is no verb; allowed are {', '.join(sorted(steps.VERBS))}")
    return steps.VERBS[verb].model_validate(body)


def _told(place: str, error: ValidationError, model: type[Strict]) -> Iterator[str]:
    for each in error.errors():
        key = ".".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            yield f"{place}: {key!r} is no key; of {model.__name__} they are {', '.join(sorted(model.model_fields))}"
        else:
            yield f"{place}: {key or 'it'}: {each['msg']}"


def _dangling(scenario: Scenario) -> list[str]:
    """Names of actors and leases that nobody has."""
    wrong = []
    leases: set[str] = set()
    for number, step in enumerate(scenario.steps, start=1):
        place = f"{scenario.name}, step {number}, {step.verb}"
        said = step.model_dump()
        if isinstance(step, steps.Asking):
            if step.lease in leases:
                wrong.append(f"{place}: the name {step.lease!r} is taken")
            leases.add(step.lease)
        wrong += [
            f"{place}: {said[key]!r} is no actor; they are {', '.join(sorted(scenario.head.actors))}"
            for key in ("by", "actor")
            if said.get(key) is not None and said[key] not in scenario.head.actors
        ]
        wrong += [f"{place}: nobody has asked for {name!r} yet" for name in _leases(said) - leases]
    return wrong


def _leases(said: Any) -> set[str]:
    """Every name of a lease in a step."""
    found: set[str] = set()
    if isinstance(said, dict):
        for key, value in said.items():
            if key in {"lease", "same_as", "newer_than", "newest", "token_of"} and value is not None:
                found.add(value)
            elif key in {"holding", "waiting", "blockers"} and value is not None:
                found |= set(value)
            else:
                found |= _leases(value)
    return found
