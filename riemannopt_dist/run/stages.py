"""The three stages of a run, each a value that turns items into rows: select, fit, evaluate.

A stage knows neither Ray nor files. Its rows go, shard by shard, to a folder of its own.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.controls import CONTROLS
from riemannopt_dist.gradients import Output, target_output
from riemannopt_dist.images import ImageRef, UnreadableImage
from riemannopt_dist.methods import FAMILIES, METHODS, FixedPath, Method
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.reference import Reference
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.models import Classifier
from riemannopt_dist.profile import Profile, equispaced
from riemannopt_dist.run import rows
from riemannopt_dist.run.batches import Subject, read_tensor, subject_batches
from riemannopt_dist.run.grid import NO_SCHEDULE, Cell
from riemannopt_dist.schedule import Array, Schedule

Row = dict[str, Any]


class Stage(Protocol):
    """What is done to the items of one shard."""

    name: ClassVar[str]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows."""
        ...

    def rows(self, model: Classifier, device: torch.device, items: Sequence[Any]) -> Iterator[Row]:
        """The rows of `items`, in order. An item that raises is found and left out by the caller."""
        ...


@dataclass(frozen=True)
class Selection:
    """Which images can be read and are classified correctly: a row for every image, good or bad."""

    batch_size: int
    name: ClassVar[str] = "selection"

    @property
    def schema(self) -> pa.Schema:
        """Those of images.parquet but for the draw."""
        return rows.SELECTION

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

    @property
    def schema(self) -> pa.Schema:
        """An image's variation along one path."""
        return rows.VARIATIONS

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
    per_image: tuple[Cell, ...]
    profiles: Mapping[str, Profile]
    metrics: tuple[str, ...]
    explain: Output
    batch_size: int
    internal_batch_size: int
    seed: int
    reference_edges: Mapping[str, Array]
    reference_images: frozenset[str]
    controls: tuple[str, ...]
    name: ClassVar[str] = "results"

    @property
    def schema(self) -> pa.Schema:
        """The cell, and the columns of the metrics."""
        return rows.results_schema(METRICS[name] for name in self.metrics)

    def rows(self, model: Classifier, device: torch.device, items: Sequence[Subject]) -> Iterator[Row]:
        """A row for each image and cell."""
        for subjects, images, targets in subject_batches(items, model, self.batch_size, device):
            mapped = list(self._attributions(model, images, targets))
            mapped += [self._control(name, images, mapped[0][1]) for name in self.controls]
            wanted = any(subject.image.image_id in self.reference_images for subject in subjects)
            references = self._references(model, images, targets) if wanted else {}
            columns = self._columns(
                model,
                images,
                targets,
                [result for _, result, _ in mapped],
                [references.get(cell.method) for cell, _, _ in mapped],
            )
            for index, (cell, result, seconds) in enumerate(mapped):
                evaluations = result.gradient_evaluations.tolist()
                for row, subject in enumerate(subjects):
                    yield {
                        "image_id": subject.image.image_id,
                        "label": subject.image.label,
                        "target": subject.target,
                        "method": cell.method,
                        "schedule": cell.schedule,
                        "rule": cell.rule,
                        "samples": cell.samples,
                        "gradient_evaluations": evaluations[row],
                        "seconds": seconds * evaluations[row],
                        **{name: values[index][row] for name, values in columns.items()},
                    }

    def _attributions(
        self, model: Classifier, images: Tensor, targets: Tensor
    ) -> Iterator[tuple[Cell, Attribution, float]]:
        """Every cell's maps, and the seconds of one gradient; cells of a family share their gradients."""
        for name, family in FAMILIES.items():
            # Riemann sums come first, then IDGI maps: the order in which a family returns them.
            plain, idgi = (
                [cell for cell in sorted(self.schedules) if METHODS[cell.method] == Method(name, wanted)]
                for wanted in (False, True)
            )
            if not plain and not idgi:
                continue
            start = time.perf_counter()
            results = family.attributions(
                model,
                images,
                targets,
                [self.schedules[cell] for cell in plain],
                [self.schedules[cell] for cell in idgi],
                output=self.explain,
                internal_batch_size=self.internal_batch_size,
            )
            if images.is_cuda:
                torch.cuda.synchronize()
            evaluations = family.evaluations([self.schedules[cell] for cell in (*plain, *idgi)])
            seconds = (time.perf_counter() - start) / (len(images) * evaluations)
            for cell, result in zip([*plain, *idgi], results, strict=True):
                yield cell, result, seconds
        for cell in self.per_image:
            yield self._placed_per_image(cell, model, images, targets)

    def _placed_per_image(
        self, cell: Cell, model: Classifier, images: Tensor, targets: Tensor
    ) -> tuple[Cell, Attribution, float]:
        """The maps of a cell with points per image, and the seconds of one gradient."""
        start = time.perf_counter()
        family = FAMILIES[METHODS[cell.method].family]
        assert isinstance(family, FixedPath)  # the grid has no other such cells
        result = family.placed_per_image(
            model,
            images,
            targets,
            self.profiles[cell.method],
            cell.samples,
            cell.tolerance,
            output=self.explain,
            internal_batch_size=self.internal_batch_size,
        )
        evaluations = int(result.gradient_evaluations.sum())
        return cell, result, (time.perf_counter() - start) / evaluations

    def _control(self, name: str, images: Tensor, other: Attribution) -> tuple[Cell, Attribution, float]:
        """A control's maps. There is no path, so f at its start is NaN and completeness is not defined."""
        none = torch.zeros_like(other.gradient_evaluations)
        nowhere = torch.full_like(other.f_baseline, torch.nan)
        result = Attribution(CONTROLS[name](images), other.f_input, nowhere, none)
        return Cell(name, NO_SCHEDULE, NO_SCHEDULE, 0), result, 0.0

    def _references(self, model: Classifier, images: Tensor, targets: Tensor) -> dict[str, Reference | None]:
        """The converged maps by method. IDGI has none: its limit is another integral than the path's."""
        return {
            family: FAMILIES[family].reference(
                model,
                images,
                targets,
                edges,
                output=self.explain,
                internal_batch_size=self.internal_batch_size,
            )
            for family, edges in self.reference_edges.items()
        }

    def _columns(
        self,
        model: Classifier,
        images: Tensor,
        targets: Tensor,
        results: Sequence[Attribution],
        references: Sequence[Reference | None],
    ) -> dict[str, list[list[Any]]]:
        """Every measured column: a list over cells of lists over images."""
        batch = MapBatch(
            model,
            images,
            targets,
            torch.stack([result.maps for result in results]),
            f_input=results[0].f_input,
            f_black=target_output(
                model,
                torch.zeros_like(images),
                targets,
                output=self.explain,
                internal_batch_size=self.internal_batch_size,
            ),
            f_baseline=torch.stack([result.f_baseline for result in results]),
            output=self.explain,
            internal_batch_size=self.internal_batch_size,
            seed=self.seed,
            references=references,
        )
        columns = {
            "f_input": batch.f_input.expand(batch.f_baseline.shape).tolist(),
            "f_baseline": batch.f_baseline.tolist(),
        }
        for name in self.metrics:
            for column, values in METRICS[name].compute(batch).items():
                # Texts belong to an image and hold for all of its maps.
                columns[column] = (
                    values.tolist() if isinstance(values, Tensor) else [list(values)] * len(results)
                )
        return columns


def as_table(stage: Stage, made: Sequence[Row]) -> pa.Table:
    """Rows as a table of the stage's schema."""
    return pa.Table.from_pylist(list(made), schema=stage.schema)
