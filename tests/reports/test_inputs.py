"""Why inputs were left out: on rows whose reasons are known."""

from typing import Any

import pyarrow as pa
import pytest

from riemannopt_dist.reports.inputs import failed_in_selection, inputs_sentence, left_out, unreadable
from riemannopt_dist.run import schemas


def table(*rows: dict[str, Any]) -> pa.Table:
    blank: dict[str, Any] = dict.fromkeys(schemas.IMAGES.names) | {"uri": "", "in_fit": False, "draw": 0}
    full = [blank | {"image_id": f"i{n}", "selected": False} | row for n, row in enumerate(rows)]
    return pa.Table.from_pylist(full, schema=schemas.IMAGES)


RIGHT, WRONG = {"label": 1, "prediction": 1}, {"label": 2, "prediction": 1}
UNLABELLED = {"label": None, "prediction": 1}
TORN = {"error": "UnreadableImage: cut off"}
LOST = {"image_id": "lost", "error": "OutOfMemory: no room"}
FAILURES = [
    {"stage": "selection", "image_id": "lost", "reason": "OutOfMemory: no room"},
    {"stage": "results", "image_id": "i0", "reason": "OutOfMemory: no room"},
]


@pytest.mark.parametrize(
    ("select", "reasons"),
    [
        ("correct", {"of another class to the model": 1, "below min_probability": 3}),
        ("wrong", {"of the label's class to the model": 2, "below min_probability": 2}),
        ("all", {"below min_probability": 4}),
    ],
)
def test_the_reason_is_that_of_the_configuration(select: str, reasons: dict[str, int]) -> None:
    images = table(RIGHT, RIGHT, WRONG, UNLABELLED, {**RIGHT, "selected": True}, TORN)
    assert left_out(images, select) == {"unreadable or without a valid label": 1, **reasons}
    told = ", ".join(f"{count} {words}" for words, count in reasons.items())
    assert inputs_sentence(images, select) == (
        f"6 inputs, 1 usable, 5 left out (1 unreadable or without a valid label, {told})"
    )


def test_what_was_given_up_on_is_not_unreadable_as_well() -> None:
    images = table({**RIGHT, "selected": True}, TORN, LOST)
    failed = failed_in_selection(FAILURES)
    assert failed == {"lost"}
    assert unreadable(images, failed).to_pylist() == [False, True, False]
    assert unreadable(images, ()).to_pylist() == [False, True, True]
    assert inputs_sentence(images, "correct", failed) == (
        "3 inputs, 1 usable, 1 left out (1 unreadable or without a valid label)"
    )
    assert inputs_sentence(table({**RIGHT, "selected": True}), "all") == "1 input, 1 usable, none left out"
