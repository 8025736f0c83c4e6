"""The reference of the limits of requests, generated from the table that they are checked against."""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gpuarbiter.v1 import gpu_arbiter_pb2
from gpuarbiter_server.api.limit_table import LIMITS, REQUESTS
from gpuarbiter_server.api.limits import PRINTABLE, Choice, Items, Limit, Number, Part, Rows, Table, Text
from gpuarbiter_server.api.wire import LARGEST_MESSAGE

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "limits.md"

_INTRODUCTION = """\
<!-- Generated from the table of limits by `make proto`; edits here are lost. -->
# Limits of requests

Every field of every request is checked before anything is done. What is not within its limits fails with
INVALID_ARGUMENT and a `google.rpc.BadRequest` that names each such field by its path, such as `holder.client_id` or
`gpu.candidates[3]`, and changes nothing. Inside a Session the call fails with the same facts, under paths such as
`acquire.holder.client_id`, and the session goes on.

- A message has at most {largest} KiB; it, and one that cannot be decoded, is INVALID_ARGUMENT as a whole. What has
  more than 4 MiB is refused by gRPC itself, with RESOURCE_EXHAUSTED.
- A field that is not *required* may be left out, and an empty string counts as left out. What its absence means
  is said in the contract. Inside a Session the `holder` of an acquire may be left out, too.
- *Printable* are all characters but control characters, line separators and those that turn the direction of text.
- Lengths are counted in characters, not bytes. Entries of maps are numbered in the order of their keys.
"""


def limits_reference() -> dict[Path, str]:
    """docs/limits.md."""
    sections = [_INTRODUCTION.format(largest=LARGEST_MESSAGE // 1024)]
    sections += [_section(name, LIMITS[name]) for name in sorted(LIMITS, key=_requests_first)]
    return {_PAGE: "\n".join(sections)}


def _requests_first(name: str) -> int:
    """Requests in the order of their services, then what they are made of."""
    return REQUESTS.index(name) if name in REQUESTS else len(REQUESTS)


def _section(name: str, rows: Rows) -> str:
    fields = _descriptor(name).fields_by_name
    lines = [f"## {name}", ""]
    if rows.fields:
        lines += ["| Field | Limit |", "|---|---|"]
        lines += [f"| `{field}` | {', '.join(_words(limit, fields[field]))} |" for field, limit in rows.fields.items()]
    else:
        lines.append("It has no fields.")
    if rows.rules:
        lines += ["", *(f"- `{rule.field}`: {rule.description}." for rule in rows.rules)]
    return "\n".join((*lines, ""))


def _descriptor(name: str) -> Descriptor:
    found: Descriptor = gpu_arbiter_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"gpuarbiter.v1.{name}")
    return found


def _words(limit: Limit, field: FieldDescriptor) -> Iterator[str]:
    if isinstance(limit, Text | Number | Choice | Part) and limit.required:
        # Of several fields one of which is set, each is required where it is the one.
        alternatives = field.containing_oneof.fields if field.containing_oneof else ()
        yield "not empty" if len(alternatives) > 1 else "required"
    match limit:
        case Text():
            yield f"at most {limit.longest:,} {_characters(limit.pattern)}"
        case Items():
            yield f"at most {limit.most} entries, each of {_text(limit.each)}"
        case Table():
            yield f"at most {limit.most} entries, keys of {_text(limit.key)}, values of {_text(limit.value)}"
        case Number():
            yield f"{limit.least} to {_number(limit.most)}"
        case Choice():
            yield f"a value of `{limit.enum.name}`"
        case Part():
            name = field.message_type.name
            yield f"see [{name}](#{name.lower()})"
        case _:
            yield str(limit)


def _text(limit: Text) -> str:
    return f"{int(limit.required)} to {limit.longest} {_characters(limit.pattern)}"


def _characters(pattern: str) -> str:
    if pattern == PRINTABLE:
        return "printable characters"
    return "characters other than U+0000" if pattern == r"[^\x00]+" else f"characters of `{pattern.rstrip('+')}`"


def _number(most: int) -> str:
    """Powers of two by name: nobody recognizes 18446744073709551615."""
    bits = most.bit_length()
    return f"2^{bits} - 1" if bits > 30 and most == 2**bits - 1 else f"{most:,}"
