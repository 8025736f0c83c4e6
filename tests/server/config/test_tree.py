"""Reading YAML: what means what, and that no text breaks it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.config.tree import MAX_BYTES, parse


def only_problem(text: str | bytes) -> str:
    read = parse(text, "file.yaml")
    assert len(read.problems) == 1
    return str(read.problems[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("10:30", "10:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1e5", "1e5"),
        ("'3'", "3"),
        ("3", 3),
        ("-3", -3),
        ("1.5", 1.5),
        ("1.5e+3", 1500.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("# nothing", None),
        ("!!str 3", "3"),
        ("!!int 3", 3),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object):
    read = parse(text, "x")
    assert (read.value, type(read.value), read.problems) == (value, type(value), [])


def test_nan_is_read_as_such():
    assert math.isnan(parse(".nan", "x").value)


def test_keys_are_the_texts_that_are_written():
    assert parse("{7: 1, off: 2, null: 3, true: 4, <<: 5}", "x").value == {
        "7": 1,
        "off": 2,
        "null": 3,
        "true": 4,
        "<<": 5,
    }


def test_lines_are_known():
    read = parse("a:\n  b: 1\n  c:\n    - 5\n", "x")
    assert read.lines == {(): 1, ("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", "0"): 4}


def test_json_with_tabs_is_read_too():
    assert parse('{\n\t"a": {\n\t\t"b": [1, 1.5, null]\n\t}\n}', "x").value == {"a": {"b": [1, 1.5, None]}}
    assert parse(b'{\n\t"a": 1\n}', "x").value == {"a": 1}


def test_a_character_that_json_escapes_in_two_halves_is_one():
    assert parse('{"a": "\\ud83d\\ude00", "\\ud83d\\ude00": "\\ud83d"}', "a file").value == {
        "a": "\U0001f600",
        "\U0001f600": "\ud83d",
    }


@pytest.mark.parametrize("text", ['{\n\t"a": 1,\n\t"a": 2\n}', '{\n\t"a": NaN\n}', "{\n\t" + "[" * 100_000])
def test_json_with_tabs_is_held_to_the_same(text: str):
    assert "not valid YAML" in only_problem(text)


def test_duplicate_keys_are_refused_each_with_its_line():
    read = parse("a: 1\nb: {c: 1,\n  c: 2}\na: 3\n", "file.yaml")
    assert [str(problem) for problem in read.problems] == [
        "b.c: a second time in one mapping (file.yaml line 3); it is on line 2 already",
        "a: a second time in one mapping (file.yaml line 4); it is on line 1 already",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not valid YAML (file.yaml line 1, column 6)"),
        ("a: 1\n b: 2", "not valid YAML (file.yaml line 2, column 3)"),
        ("a: &x 1\nb: *x", "aliases are not supported"),
        ("&x [*x]", "aliases are not supported"),
        ("[" * 10_000, "nested deeper than 24"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: \x07", "special characters are not allowed"),
        (b"a: \xff\xfe", "invalid start byte"),
        ('"\\U99999999"', "not valid YAML"),
        ("%YAML " + "9" * 5000 + ".1\n--- 1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "write a plain mapping, list, text or number"),
        ("!!set {a}", "write a plain mapping, list, text or number"),
        ("!!int abc", "write a plain mapping, list, text or number"),
        ("!!bool abc", "write a plain mapping, list, text or number"),
        ("!!timestamp x", "write a plain mapping, list, text or number"),
        ("!mine x", "write a plain mapping, list, text or number"),
        ("{[1]: 2}", "keys are texts"),
        ("9" * 41, "at most 40 are read"),
        ("a: " + "9" * 10_000, "at most 40 are read"),
        ("x" * (MAX_BYTES + 1), f"at most {MAX_BYTES} bytes are read"),
        ("\udc80", "special characters are not allowed"),
    ],
)
def test_what_is_no_plain_yaml_is_one_clear_problem(text: str | bytes, said: str):
    assert said in only_problem(text)


@given(text=st.text() | st.binary() | st.text(alphabet='{}[]:,-"\\! &*\n\tab1.|>%#?~x'))
def test_no_text_breaks_the_reader(text: str | bytes):
    read = parse(text, "x")
    assert read.problems or read.value is None or isinstance(read.value, str | int | float | list | dict)
