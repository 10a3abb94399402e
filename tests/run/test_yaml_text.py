"""YAML as YAML 1.2 has it: what a scalar is, what is refused, and that nothing small stands for much."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from riemannopt_dist.run.config.yaml_text import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The examples of section 10.3.2 of YAML 1.2.2, …
        *[(text, None) for text in ("", "null", "Null", "NULL", "~")],
        *[(text, True) for text in ("true", "True", "TRUE")],
        *[(text, False) for text in ("false", "False", "FALSE")],
        *[("0", 0), ("0o7", 7), ("0x3A", 58), ("-19", -19), ("+1", 1), ("0o17", 15)],
        *[("0.", 0.0), ("-0.0", 0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0)],
        *[(".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf)],
        *[("1e3", 1000.0), ("1e-05", 0.00001), ("1.", 1.0)],
        # … what YAML 1.1 reads otherwise, …
        *[(text, text) for text in ("y", "n", "yes", "No", "on", "OFF", "tRUE", "nULL")],
        *[(text, text) for text in ("1:30", "190:20:30.15", "0b11", "1_000", "1_0.5", "=")],
        *[(text, text) for text in ("2026-11-26", "2001-12-14t21:59:43.10-05:00")],
        # … and what readers do not agree on.
        *[(text, text) for text in ("016", "-016", "00", "0o8", "00.5", "0x", "1e", ".", "+", "NaN", "inf")],
        ("99999999999999999999", 1e20),
    ],
)
def test_a_scalar_is_what_the_core_schema_says(text: str, value: Any) -> None:
    (found,) = parse_yaml(f"[a, {text}]")[1:] if text else [parse_yaml("a:")["a"]]
    assert (type(found), found) == (type(value), value)
    for quoted in (f"'{text}'", f'"{text}"'):
        assert parse_yaml(quoted) == text


def test_not_a_number() -> None:
    assert all(math.isnan(value) for value in parse_yaml("[.nan, .NaN, .NAN]"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", "not YAML: expected the node content, but found '<stream end>', line 1, column 5"),
        ("a: 1\n\tb: 2", "not YAML: found character '\\t' that cannot start any token, line 2, column 1"),
        ("a: b: c", "not YAML: mapping values are not allowed here, line 1, column 5"),
        ("a: !e!x 1", "not YAML: found undefined tag handle '!e!', line 1, column 4"),
        ("a: !!int '3'", "expected a value without a tag, got tag:yaml.org,2002:int, line 1, column 4"),
        (
            "a: !!python/name:os.system x",
            "expected a value without a tag, got tag:yaml.org,2002:python/name:os.system, line 1, column 4",
        ),
        ("a: 1\nb: 2\n'a': 3", "key a is given twice, line 3, column 1"),
        ("{a: {b: 1, b: 2}}", "key b is given twice, line 1, column 12"),
        ("1: a", "expected text as a key, line 1, column 1"),
        ("? [a]\n: b", "expected text as a key, line 1, column 3"),
        ("a: 1\n---\nb: 2", "expected one document, got another, line 2, column 1"),
        (
            "%YAML 1.1\n---\na: yes",
            "expected YAML 1.2, got a directive for 1.1, line 2, column 1",
        ),
        ("a: *b", "alias b stands for nothing before it, line 1, column 4"),
        ("a: &a [*a]", "alias a stands for nothing before it, line 1, column 8"),
        ("a: {<<: 3}", "expected keys and values after <<, line 1, column 9"),
        ("[" * 99 + "]" * 99, "expected at most 50 lists and mappings within each other, line 1, column 51"),
    ],
)
def test_what_it_refuses_is_one_line_with_its_place(text: str, line: str) -> None:
    with pytest.raises(ValueError, match="line") as error:
        parse_yaml(text)
    assert str(error.value) == line


@pytest.mark.parametrize("last", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_of_aliases_are_counted_before_they_are_followed(last: str) -> None:
    first = "a0: &a0 [x, y]\n" if last == "[{}]" else "a0: &a0 {x: 1, y: 2}\n"
    text = first + "".join(
        f"a{n}: &a{n} {last.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 30)
    )
    with pytest.raises(ValueError, match="expected at most 10000 values, those that aliases stand for"):
        parse_yaml(text)  # else there would be 9 ** 29


def test_merged_keys_give_way_to_those_beside_them_and_later_mappings_to_earlier_ones() -> None:
    text = "a: &a {p: 1, q: 2}\nb: {<<: [*a, {q: 3, r: 4}], r: 5}"
    assert parse_yaml(text)["b"] == {"p": 1, "q": 2, "r": 5}
    assert parse_yaml("a: &a {p: 1}\nb: *a") == {"a": {"p": 1}, "b": {"p": 1}}


@pytest.mark.parametrize(
    "path",
    [*Path("jobs").rglob("*.yaml"), Path("riemannopt_dist/demo/demo.yaml")],
    ids=lambda path: path.name,
)
def test_shipped_files_are_the_same_to_a_reader_of_yaml_1_1(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert parse_yaml(text) == yaml.safe_load(text)
