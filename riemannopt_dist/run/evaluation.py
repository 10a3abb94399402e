"""The last stage: attributions and metrics of every image under every cell of the grid."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.controls import CONTROLS
from riemannopt_dist.gradients import Output, target_output
from riemannopt_dist.guided_path import Walk
from riemannopt_dist.methods import FAMILIES, METHODS, FixedPath, Question
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.reference import Reference
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.profile import Profile
from riemannopt_dist.run import rows
from riemannopt_dist.run.batches import Subject, subject_batches
from riemannopt_dist.run.engine import Engine
from riemannopt_dist.run.finiteness import check_maps, check_row
from riemannopt_dist.run.grid import NO_SCHEDULE, SECANT, Cell, sums_of
from riemannopt_dist.run.stage import Row
from riemannopt_dist.schedule import Array, Schedule, schedule_from_partition


@dataclass(frozen=True)
class Evaluation:
    """Attributions and metrics of every image under every cell of the grid."""

    schedules: Mapping[Cell, Schedule]
    per_image: tuple[Cell, ...]
    profiles: Mapping[str, Profile]
    controls: tuple[str, ...]
    metrics: tuple[str, ...]
    reference_edges: Mapping[str, Array]
    reference_images: frozenset[str]
    explain: Output
    walk: Walk
    batch_size: int
    seed: int
    name: ClassVar[str] = "results"

    @property
    def schema(self) -> pa.Schema:
        """The cell, and the columns of the metrics."""
        return rows.results_schema(METRICS[name] for name in self.metrics)

    @property
    def rows_an_image(self) -> int:
        """One for each cell and control."""
        return len(self.schedules) + len(self.per_image) + len(self.controls)

    def rows(self, engine: Engine, items: Sequence[Subject]) -> Iterator[Row]:
        """A row for each image and cell. Raises FloatingPointError for a map or value that is not finite."""
        batches = subject_batches(items, engine, self.batch_size)
        for subjects, images, targets in engine.tally.awaited(batches):
            size = engine.internal_batch_size
            question = Question(engine.model, images, targets, self.explain, size, self.walk)
            mapped = [*self._shared(question), *(self._placed(question, cell) for cell in self.per_image)]
            mapped += [self._control(question, name, mapped[0].attribution) for name in self.controls]
            places = [n for n, s in enumerate(subjects) if s.image.image_id in self.reference_images]
            cells = [mapping.cell for mapping in mapped]
            references = self._references_at(places, question, cells) if places else []
            columns = self._columns(question, mapped, references)
            for index, mapping in enumerate(mapped):
                evaluations = mapping.attribution.gradient_evaluations.tolist()
                for place, subject in enumerate(subjects):
                    row = {
                        "image_id": subject.image.image_id,
                        "label": subject.image.label,
                        "target": subject.target,
                        **asdict(mapping.cell),
                        "gradient_evaluations": evaluations[place],
                        "seconds": mapping.seconds * evaluations[place],
                        **{name: values[index][place] for name, values in columns.items()},
                    }
                    check_row(row, [METRICS[name] for name in self.metrics])
                    yield row

    def _shared(self, question: Question) -> Iterator["_Mapped"]:
        """Every cell of fixed points; cells of a family share their gradients, but for secants."""

        def sharing(cell: Cell) -> tuple[str, bool]:
            return METHODS[cell.method].family, cell.rule == SECANT

        for (name, _), group in groupby(sorted(self.schedules, key=lambda c: (sharing(c), c)), sharing):
            cells, sums = sums_of(group, self.schedules)
            start = time.perf_counter()
            results = FAMILIES[name].attributions(question, sums)
            made = len(question.images) * FAMILIES[name].evaluations(sums)
            seconds = _seconds_since(start, question.images) / made
            for cell, result in zip(cells, results, strict=True):
                yield _Mapped(cell, result, seconds)

    def _placed(self, question: Question, cell: Cell) -> "_Mapped":
        """A cell of points per image."""
        family = FAMILIES[METHODS[cell.method].family]
        assert isinstance(family, FixedPath)  # the grid has no other such cells
        start = time.perf_counter()
        profile = self.profiles[cell.method]
        if cell.rule == SECANT:
            result = family.secants_per_image(question, profile, cell.samples)
        else:
            result = family.placed_per_image(question, profile, cell.samples, cell.tolerance)
        made = int(result.gradient_evaluations.sum())
        return _Mapped(cell, result, _seconds_since(start, question.images) / made)

    def _control(self, question: Question, name: str, other: Attribution) -> "_Mapped":
        """A control's maps. There is no path, so f at its start is NaN and completeness is not defined."""
        none = torch.zeros_like(other.gradient_evaluations)
        nowhere = torch.full_like(other.f_baseline, torch.nan)
        result = Attribution(CONTROLS[name](question.images), other.f_input, nowhere, none)
        return _Mapped(Cell(name, NO_SCHEDULE, NO_SCHEDULE, 0), result, 0.0)

    def _references_at(
        self, places: list[int], question: Question, cells: Sequence[Cell]
    ) -> list[Reference | None]:
        """Those of the images at `places` of a batch; zero for others, with which nothing is compared."""
        if len(places) == len(question.images):
            return self._references(question, cells)
        some = replace(question, images=question.images[places], targets=question.targets[places])
        found = self._references(some, cells)
        spread = {id(one): one.spread(places, len(question.images)) for one in found if one is not None}
        return [None if one is None else spread[id(one)] for one in found]

    def _references(self, question: Question, cells: Sequence[Cell]) -> list[Reference | None]:
        """Each cell's converged maps. IDGI has none: its limit is another integral than the path's."""
        found: dict[Cell, Reference] = {}
        for name, edges in self.reference_edges.items():
            asked = [cell for cell in cells if cell.method == name]
            # Points per image follow a path that no schedule leads.
            anywhere = schedule_from_partition(edges, "trapezoid")
            schedules = [self.schedules.get(cell, anywhere) for cell in asked]
            made = FAMILIES[name].references(question, schedules, edges) if asked else {}
            found |= {cell: made[schedule] for cell, schedule in zip(asked, schedules, strict=True)}
        return [found.get(cell) for cell in cells]

    def _columns(
        self, question: Question, mapped: Sequence["_Mapped"], references: Sequence[Reference | None]
    ) -> dict[str, list[list[Any]]]:
        """Every measured column: a list over cells of lists over images."""
        maps = torch.stack([mapping.attribution.maps for mapping in mapped])
        check_maps([mapping.cell for mapping in mapped], maps, references)
        black = torch.zeros_like(question.images)
        batch = MapBatch(
            question.model,
            question.images,
            question.targets,
            maps,
            f_input=mapped[0].attribution.f_input,
            f_black=target_output(question.model, black, question.targets, **question.settings),
            f_baseline=torch.stack([mapping.attribution.f_baseline for mapping in mapped]),
            references=references,
            seed=self.seed,
            **question.settings,
        )
        columns = {
            "f_input": batch.f_input.expand(batch.f_baseline.shape).tolist(),
            "f_baseline": batch.f_baseline.tolist(),
        }
        for name in self.metrics:
            for column, values in METRICS[name].compute(batch).items():
                # Texts belong to an image and hold for all of its maps.
                columns[column] = (
                    values.tolist() if isinstance(values, Tensor) else [list(values)] * len(mapped)
                )
        return columns


@dataclass(frozen=True, eq=False)
class _Mapped:
    """A cell's maps of a batch, and the seconds that one of its gradients took."""

    cell: Cell
    attribution: Attribution
    seconds: float


def _seconds_since(start: float, images: Tensor) -> float:
    """Wall-clock seconds since `start`, once the device has done what it was asked."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
