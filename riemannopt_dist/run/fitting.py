"""The second stage: how much each image's integrand changes along each path."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from riemannopt_dist.gradients import Output
from riemannopt_dist.guided_path import Walk
from riemannopt_dist.methods import FAMILIES, Question
from riemannopt_dist.run import rows
from riemannopt_dist.run.batches import Subject, subject_batches
from riemannopt_dist.run.engine import Engine
from riemannopt_dist.run.stage import Row


@dataclass(frozen=True)
class Fitting:
    """Algorithm 1 for each image: how much the integrand changes between each family's positions."""

    name: str
    positions: Mapping[str, tuple[float, ...]]
    explain: Output
    walk: Walk
    batch_size: int

    @property
    def schema(self) -> pa.Schema:
        """An image's variation along one path."""
        return rows.VARIATIONS

    @property
    def rows_an_image(self) -> int:
        """One for each family."""
        return len(self.positions)

    def rows(self, engine: Engine, items: Sequence[Subject]) -> Iterator[Row]:
        """The variation of every image along every family's path. Raises FloatingPointError unless finite."""
        batches = subject_batches(items, engine, self.batch_size)
        for subjects, images, targets in engine.tally.awaited(batches):
            size = engine.internal_batch_size
            question = Question(engine.model, images, targets, self.explain, size, self.walk)
            for family, alphas in self.positions.items():
                variations = FAMILIES[family].variations(question, np.array(alphas))
                if not np.isfinite(variations).all():
                    raise FloatingPointError(f"the gradients along the path of {family} are not finite")
                for subject, variation in zip(subjects, variations, strict=True):
                    yield {
                        "image_id": subject.image.image_id,
                        "method": family,
                        "alphas": alphas,
                        "variation": variation.tolist(),
                    }
