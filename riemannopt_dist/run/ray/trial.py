"""Whether the images of a stage fail one and all: then it is the model that fails, and a run stops at it."""

from dataclasses import dataclass

from riemannopt_dist.run.failure import Failure

PATIENT = 8
"""Images that fail before the first one goes through, until a run stops."""


@dataclass
class Trial:
    """What a stage's images come to, until one goes through.

    `left` images are to be done. `known` are those that failed in an earlier attempt at the run, in which
    others went through; None where none ever did.
    """

    stage: str
    left: int
    known: frozenset[str] | None
    _failed: int = 0
    _reason: str = ""
    _passed: bool = False

    def passed(self) -> None:
        """An image went through."""
        self._passed = True

    def failed(self, failure: Failure) -> None:
        """An image was given up on. Raises ValueError where PATIENT or all are, and none goes through."""
        if failure.own or failure.out_of_reach:
            self.left -= 1
        elif failure.image_id not in (self.known or ()):
            self._failed += 1
            self._reason = failure.reason
        enough = min(PATIENT, self.left) if self.known is None else PATIENT
        if self._failed >= max(1, enough) and not self._passed:
            raise ValueError(
                f"{self.stage}: none of the first {self._failed} images goes through the model "
                f"({self._reason}); the same command goes on once it is mended"
            )
