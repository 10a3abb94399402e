"""An image that a stage gave up on, a row of failures.parquet, and what its reason tells.

A shard that fails is there by its images.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riemannopt_dist.data.errors import ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.run.draw import draw
from riemannopt_dist.run.stages.names import FIT, REFINE, RESULTS, SELECTION

if TYPE_CHECKING:
    from riemannopt_dist.run.config.config import Config
    from riemannopt_dist.run.directory import RunDirectory

TOLD = (UnreadableImage, UnreachableImage, ReplacedImage)
"""The errors that a reason is asked for: those of a class below are told by its name."""


def reason_of(error: BaseException) -> str:
    """The reason that an error is: its type and text."""
    kind = next((kind for kind in TOLD if isinstance(error, kind)), type(error))
    return f"{kind.__name__}: {error}"


@dataclass(frozen=True)
class Failure:
    """An image given up on in one of the stages. Its `reason` is that of `reason_of`, in one line."""

    stage: str
    image_id: str
    reason: str
    attempts: int

    @property
    def own(self) -> bool:
        """Whether it is the image's, which cannot be read or decoded, not the model's or a worker's."""
        return self._is_of(UnreadableImage)

    @property
    def out_of_reach(self) -> bool:
        """Whether it is the source's, which does not give the image, or another in its place."""
        return self._is_of(UnreachableImage) or self._is_of(ReplacedImage)

    def _is_of(self, kind: type[BaseException]) -> bool:
        return self.reason.startswith(f"{kind.__name__}:")


def given_up_share(directory: RunDirectory, config: Config) -> float:
    """The share of its images that a stage gave up on, the largest of all stages."""
    images = directory.read_images() or []
    in_fit = sum(row["in_fit"] for row in images)
    counts = {SELECTION: len(images), FIT: in_fit, REFINE: in_fit}
    counts[RESULTS] = len(draw(images, config)[1]) if images else 0
    failed = Counter(failure.stage for failure in directory.read_failures())
    return max((failed[stage] / max(count, 1) for stage, count in counts.items()), default=0.0)
