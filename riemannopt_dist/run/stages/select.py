"""The first stage: which images can be read, and are used by what the model sees in them."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.choices import Select, Targets
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.objective import logits_of
from riemannopt_dist.run import schemas
from riemannopt_dist.run.stages.base import Part, Row
from riemannopt_dist.run.stages.batches import image_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.names import SELECTION
from riemannopt_dist.run.targets import column_of


@dataclass(frozen=True)
class Selection:
    """Which images can be read and are used: a row for every image, good or bad.

    `select` says which, by their labels; `min_probability` is that of the prediction. With the targets
    runner_up the rows tell the second most probable class, too, with several the most probable of these.
    """

    batch_size: int
    select: Select = "correct"
    min_probability: float = 0.0
    targets: Targets = "label"
    name: ClassVar[str] = SELECTION
    key: ClassVar[tuple[str, ...]] = ()

    @property
    def schema(self) -> pa.Schema:
        """Those of images.parquet but for the draw."""
        column = column_of(self.targets)
        return pa.schema([*schemas.SELECTION, *(f for f in schemas.OPTIONAL if f.name == column)])

    @property
    def parts(self) -> Sequence[Part]:
        """One."""
        return [()]

    def kept(self, fingerprint: str) -> Container[Part]:
        """All."""
        return self.parts

    def only(self, parts: Iterable[Part]) -> "Selection":
        """The stage, which has one part."""
        return self

    def rows(self, engine: Engine, items: Sequence[ImageRef]) -> Iterator[Row]:
        """Predictions of the readable images, reasons of the others.

        Raises FloatingPointError for logits that are not finite.
        """
        digests: dict[str, str | None] = {}
        batches = image_batches(items, engine, self.batch_size, digests)
        for refs, outcomes in engine.tally.awaited(batches):
            yield from self._batch(engine, refs, outcomes, digests)

    def _batch(
        self,
        engine: Engine,
        refs: Sequence[ImageRef],
        outcomes: Sequence[Tensor | UnreadableImage],
        digests: Mapping[str, str | None],
    ) -> Iterator[Row]:
        tensors = [outcome for outcome in outcomes if isinstance(outcome, Tensor)]
        predictions: Iterator[tuple[float, int, int]] = iter(())
        if tensors:
            with torch.no_grad():
                logits = logits_of(engine.model, torch.stack(tensors).to(engine.device))
                shares, classes = logits.softmax(dim=1).topk(1 + (self.targets == "runner_up"))
            if not bool(shares.isfinite().all()):
                raise FloatingPointError("the logits are not finite")
            targets = likeliest(logits, self.targets) if isinstance(self.targets, tuple) else classes[:, -1]
            predictions = iter(
                zip(shares[:, 0].tolist(), classes[:, 0].tolist(), targets.tolist(), strict=True)
            )
        for ref, outcome in zip(refs, outcomes, strict=True):
            reason = str(outcome) if isinstance(outcome, UnreadableImage) else None
            confidence, best, target = next(predictions) if reason is None else (None,) * 3
            yield {
                "image_id": ref.image_id,
                "uri": ref.uri,
                "offset": ref.offset,
                "size": ref.size,
                "group": ref.group,
                "label": ref.label,
                "prediction": best,
                "probability": confidence,
                "selected": reason is None and self._is_used(ref.label, best, confidence),
                "digest": digests.get(ref.image_id),
                "error": reason,
                **{name: target for name in self.schema.names[len(schemas.SELECTION) :]},
            }

    def _is_used(self, label: int | None, prediction: int | None, probability: float | None) -> bool:
        chosen = label is None or SELECTIONS[self.select](label == prediction)
        return chosen and probability is not None and probability >= self.min_probability


def likeliest(logits: Tensor, classes: Sequence[int | str]) -> Tensor:
    """Of classes, told by their indices, the one with the highest logit of each row (B, K): (B,)."""
    indices = torch.tensor([int(one) for one in classes], device=logits.device)
    return indices[logits[:, indices].argmax(dim=1)]


SELECTIONS: dict[Select, Callable[[bool], bool]] = {
    "correct": lambda correct: correct,
    "wrong": lambda correct: not correct,
    "all": lambda correct: True,
}
"""Whether an image is used that the model sees its label's class in, or does not."""
