"""The three stages of a run, each a value that turns items into rows: select, fit, evaluate.

A stage knows neither Ray nor files. Its rows go, shard by shard, to a folder of its own.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import torch

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.gradients import Output
from riemannopt_dist.images import ImageRef, UnreadableImage
from riemannopt_dist.methods import FAMILIES, METHODS
from riemannopt_dist.metrics.completeness import attribution_sum, relative_error
from riemannopt_dist.models import Classifier
from riemannopt_dist.profile import equispaced
from riemannopt_dist.run import rows
from riemannopt_dist.run.batches import Subject, read_tensor, subject_batches
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.schedule import Schedule

Row = dict[str, Any]


class Stage(Protocol):
    """What is done to the items of one shard."""

    name: ClassVar[str]
    schema: ClassVar[pa.Schema]

    def rows(self, model: Classifier, device: torch.device, items: Sequence[Any]) -> Iterator[Row]:
        """The rows of `items`, in order. An item that raises is found and left out by the caller."""
        ...


@dataclass(frozen=True)
class Selection:
    """Which images can be read and are classified correctly: a row for every image, good or bad."""

    batch_size: int
    name: ClassVar[str] = "selection"
    schema: ClassVar[pa.Schema] = rows.SELECTION

    def rows(self, model: Classifier, device: torch.device, items: Sequence[ImageRef]) -> Iterator[Row]:
        """Predictions of the readable images, reasons of the others."""
        for start in range(0, len(items), self.batch_size):
            yield from self._batch(model, device, items[start : start + self.batch_size])

    def _batch(self, model: Classifier, device: torch.device, refs: Sequence[ImageRef]) -> Iterator[Row]:
        tensors, errors = [], {}
        for ref in refs:
            try:
                tensors.append(read_tensor(ref, model))
            except UnreadableImage as error:
                errors[ref.image_id] = str(error)
        predictions: Iterator[tuple[int, float]] = iter(())
        if tensors:
            with torch.no_grad():
                probability, prediction = model(torch.stack(tensors).to(device)).softmax(dim=1).max(dim=1)
            predictions = iter(zip(prediction.tolist(), probability.tolist(), strict=True))
        for ref in refs:
            reason = errors.get(ref.image_id)
            best, confidence = next(predictions) if reason is None else (None, None)
            yield {
                "image_id": ref.image_id,
                "uri": ref.uri,
                "label": ref.label,
                "prediction": best,
                "probability": confidence,
                "selected": reason is None and ref.label in (None, best),
                "error": reason,
            }


@dataclass(frozen=True)
class Fitting:
    """Algorithm 1 for each image and family: how much the integrand changes between equispaced points."""

    families: tuple[str, ...]
    samples: int
    explain: Output
    batch_size: int
    internal_batch_size: int
    name: ClassVar[str] = "fit"
    schema: ClassVar[pa.Schema] = rows.VARIATIONS

    def rows(self, model: Classifier, device: torch.device, items: Sequence[Subject]) -> Iterator[Row]:
        """The variation of every image along every family's path."""
        alphas = equispaced(self.samples)
        for subjects, images, targets in subject_batches(items, model, self.batch_size, device):
            for family in self.families:
                variations = FAMILIES[family].variations(
                    model,
                    images,
                    targets,
                    alphas,
                    output=self.explain,
                    internal_batch_size=self.internal_batch_size,
                )
                for subject, variation in zip(subjects, variations, strict=True):
                    yield {
                        "image_id": subject.image.image_id,
                        "method": family,
                        "alphas": alphas.tolist(),
                        "variation": variation.tolist(),
                    }


@dataclass(frozen=True)
class Evaluation:
    """Attributions and metrics of every image under every cell of the grid."""

    schedules: Mapping[Cell, Schedule]
    explain: Output
    batch_size: int
    internal_batch_size: int
    name: ClassVar[str] = "results"
    schema: ClassVar[pa.Schema] = rows.RESULTS

    def rows(self, model: Classifier, device: torch.device, items: Sequence[Subject]) -> Iterator[Row]:
        """A row for each image and cell; all cells of a family share their gradients."""
        for subjects, images, targets in subject_batches(items, model, self.batch_size, device):
            for name, family in FAMILIES.items():
                cells = [cell for cell in self.schedules if METHODS[cell.method].family == name]
                if not cells:
                    continue
                # Riemann sums come first, then IDGI maps: the order in which a family returns them.
                cells.sort(key=lambda cell: (METHODS[cell.method].idgi, cell))
                schedules = [self.schedules[cell] for cell in cells]
                plain = sum(not METHODS[cell.method].idgi for cell in cells)
                start = time.perf_counter()
                results = family.attributions(
                    model,
                    images,
                    targets,
                    schedules[:plain],
                    schedules[plain:],
                    output=self.explain,
                    internal_batch_size=self.internal_batch_size,
                )
                columns = [_columns(result) for result in results]
                evaluations = len(images) * family.evaluations(schedules)
                seconds = (time.perf_counter() - start) / evaluations
                for cell, values in zip(cells, columns, strict=True):
                    for index, subject in enumerate(subjects):
                        yield _result_row(subject, cell, {k: v[index] for k, v in values.items()}, seconds)


def _columns(result: Attribution) -> dict[str, list[Any]]:
    """The measured columns of one cell, a value an image."""
    return {
        "f_input": result.f_input.tolist(),
        "f_baseline": result.f_baseline.tolist(),
        "attribution_sum": attribution_sum(result).tolist(),
        "relative_error": relative_error(result).tolist(),
        "gradient_evaluations": result.gradient_evaluations.tolist(),
    }


def _result_row(subject: Subject, cell: Cell, values: Row, seconds_per_gradient: float) -> Row:
    return {
        "image_id": subject.image.image_id,
        "label": subject.image.label,
        "target": subject.target,
        "method": cell.method,
        "schedule": cell.schedule,
        "rule": cell.rule,
        "samples": cell.samples,
        **values,
        "seconds": seconds_per_gradient * values["gradient_evaluations"],
    }


def as_table(stage: Stage, made: Sequence[Row]) -> pa.Table:
    """Rows as a table of the stage's schema."""
    return pa.Table.from_pylist(list(made), schema=stage.schema)
