"""What became of each input of a run, finished or not: a word for a row of images.parquet."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from riemannopt_dist.run.draw import evaluated_ids
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.stages.names import SELECTION

UNREADABLE = "unreadable"
GIVEN_UP_ON = "given up on"
MISCLASSIFIED = "misclassified"
FIT = "fit"
EVALUATED = "evaluated"
TO_COME = "to come"
NOT_DRAWN = "not drawn"
NOT_SELECTED = "not selected"


def uses(
    images: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    failures: Iterable[Failure],
    evaluated: Set[str],
) -> list[str]:
    """What became of each of `images`, rows of images.parquet, in a run of `config` as run.json has it.

    `unreadable`: it, or its label, cannot be read; `error` says why. `given up on`: failures.parquet says
    why. `misclassified`: the model sees another class in it, for which `select: correct` leaves it out. `not
    selected`: it is left out by another `select`, or by `min_probability`. `fit`: in the subset that is
    fitted on. `evaluated`: it has results. `to come`: it will have. `not drawn`: it was not needed.
    """
    given_up = {(f.stage == SELECTION, f.image_id) for f in failures if f.stage != SELECTION or not f.own}
    select = config.get("select", "correct")
    drawn = {*evaluated_ids(images, config)}

    def use(row: Mapping[str, Any]) -> str:
        name = row["image_id"]
        if name in evaluated:
            return EVALUATED
        if (row["error"] is not None, name) in given_up:
            return GIVEN_UP_ON
        if row["error"] is not None:
            return UNREADABLE
        if not row["selected"]:
            wrong = row["label"] is not None and row["label"] != row["prediction"]
            return MISCLASSIFIED if wrong and select == "correct" else NOT_SELECTED
        return FIT if row["in_fit"] else TO_COME if name in drawn else NOT_DRAWN

    return [use(row) for row in images]
