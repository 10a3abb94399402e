"""What the reason of a failure tells, whoever wrote it: this version, or one before."""

import pytest

from riemannopt_dist.data.errors import ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.run.failure import Failure, reason_of


class Torn(UnreadableImage):
    """As a reader of a format of its own may raise."""


@pytest.mark.parametrize(
    ("error", "own", "out_of_reach"),
    [
        (UnreadableImage("empty file"), True, False),
        (Torn("half of it"), True, False),
        (UnreachableImage("denied"), False, True),
        (ReplacedImage("another one"), False, True),
        (RuntimeError("UnreadableImage: not its type"), False, False),
    ],
)
def test_a_reason_tells_whose_fault_it_is(error: Exception, own: bool, out_of_reach: bool) -> None:
    failure = Failure("results", "a.png", reason_of(error), 1)
    assert (failure.own, failure.out_of_reach) == (own, out_of_reach)
    assert failure.reason.endswith(f": {error}")


def test_the_words_of_stored_reasons_are_known() -> None:
    """Files that are there have them: a class that is renamed needs its former name here."""
    words = ("UnreadableImage: cut off", "UnreachableImage: denied", "ReplacedImage: another")
    told = [Failure("fit", "a.png", reason, 1) for reason in words]
    assert [(failure.own, failure.out_of_reach) for failure in told] == [
        (True, False),
        (False, True),
        (False, True),
    ]
