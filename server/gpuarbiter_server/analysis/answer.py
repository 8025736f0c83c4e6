"""What a model may answer, and whether it did.

Law: an answer is exactly one object of this shape, or it is none. Its texts are shown to people and do nothing.
"""

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gpuarbiter_server.analysis.model import Judgement, Verdict

_LONGEST_TEXT = 1000
_VERDICTS = [verdict.value for verdict in Verdict]


class BadAnswerError(Exception):
    """This is no answer; says why, without what the model wrote."""


def _printable(text: str) -> str:
    """The text on one line: without what controls a terminal, a direction of writing, or nothing at all."""
    kept = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in text)
    shown = " ".join(kept.split())
    if not shown:
        raise ValueError("an empty text")
    return shown


_Text = Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_printable)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    status: Verdict
    confidence: float = Field(ge=0, le=1, allow_inf_nan=False)
    reason: _Text
    recommendation: _Text
    adjusted_score: float = Field(ge=0, le=100, allow_inf_nan=False)


# For servers that hold a model to a schema. Without limits: some servers refuse a schema that has them.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": _VERDICTS},
        "confidence": {"type": "number", "description": "0 to 1"},
        "reason": {"type": "string", "description": "why, with the figures; at most 300 characters"},
        "recommendation": {"type": "string", "description": "what people could do; at most 300 characters"},
        "adjusted_score": {"type": "number", "description": "0 to 100: the score if only what matters now counted"},
    },
    "required": ["status", "confidence", "reason", "recommendation", "adjusted_score"],
    "additionalProperties": False,
}


def read(text: str) -> Judgement:
    """The judgement in an answer; BadAnswerError where it is none.

    Models write around the object: what they thought before, and marks of code.
    """
    said = text.rpartition("</think>")[2]
    try:
        answer = _Answer.model_validate_json(said[said.find("{") : said.rfind("}") + 1])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Only names that are ours: one that is not known came from the model.
        known = [str(name) for name in first["loc"] if name in _Answer.model_fields]
        raise BadAnswerError(": ".join(("no valid answer", *known, first["type"]))) from None
    return Judgement(
        answer.status, round(answer.confidence, 2), answer.reason, answer.recommendation, answer.adjusted_score
    )
