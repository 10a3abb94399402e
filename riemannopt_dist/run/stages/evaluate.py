"""The last stage: attributions and metrics of every image under every cell of the grid."""

import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.choices import Precision
from riemannopt_dist.data.boxes import Box
from riemannopt_dist.estimators.base import Placed, attribute_together, cost_together, has_gap, shares
from riemannopt_dist.estimators.converged import Reference, references
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.controls import CONTROLS
from riemannopt_dist.metrics.metric import BOX_TOLERANCE, MapBatch
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.run import schemas
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.finiteness import check_maps, check_row
from riemannopt_dist.run.grid import Cell, control_cell
from riemannopt_dist.run.maps import MapOutput, map_file
from riemannopt_dist.run.stages.base import SHARD, Part, Row
from riemannopt_dist.run.stages.batches import example_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.names import RESULTS


@dataclass(frozen=True)
class Evaluation:
    """Attributions and metrics of every image under every cell of the grid.

    Maps are computed in `precision`, and what metrics ask of the model in `score_precision`.
    `kept_cells` are, by the fingerprint that a shard's file tells, those whose rows in it stay.
    """

    placed: Mapping[Cell, Placed]
    paths: Mapping[str, PathFamily]
    controls: tuple[str, ...]
    metrics: tuple[str, ...]
    reference_edges: Mapping[str, Array]
    reference_images: frozenset[str]
    explain: Output
    batch_size: int
    seed: int
    precision: Precision = "fp32"
    score_precision: Precision = "fp32"
    box_tolerance: float = BOX_TOLERANCE
    maps: MapOutput | None = None
    kept_cells: Mapping[str, frozenset[Cell]] = field(default_factory=dict)
    name: ClassVar[str] = RESULTS
    key: ClassVar[tuple[str, ...]] = tuple(one.name for one in fields(Cell))

    @property
    def schema(self) -> pa.Schema:
        """The cell, and the columns of the metrics; with the estimators that have no gap to judge."""
        names = {cell.estimator for cell in self.placed}
        without_gap = [name for name in names if not has_gap(ESTIMATORS[name])]
        return schemas.results_schema([METRICS[name] for name in self.metrics], without_gap)

    @property
    def parts(self) -> Sequence[Part]:
        """The cells and controls."""
        return [astuple(cell) for cell in [*sorted(self.placed), *map(control_cell, self.controls)]]

    def kept(self, fingerprint: str) -> Container[Part]:
        """Those of `kept_cells`."""
        return {astuple(cell) for cell in self.kept_cells.get(fingerprint, ())}

    def only(self, parts: Iterable[Part]) -> "Evaluation":
        """The stage for some of its cells and controls, and their maps."""
        cells = {Cell(*part) for part in parts}
        return replace(
            self,
            placed={cell: placed for cell, placed in self.placed.items() if cell in cells},
            controls=tuple(name for name in self.controls if control_cell(name) in cells),
            maps=None if self.maps is None else self.maps.only(cells),
        )

    def rows(self, engine: Engine, items: Sequence[Example]) -> Iterator[Row]:
        """A row for each image and cell. Raises FloatingPointError for a map or value that is not finite."""
        batches = example_batches(items, engine, self.batch_size)
        for examples, images, targets in engine.tally.awaited(batches):
            size = engine.internal_batch_size
            boxes = [example.framed_boxes(engine.model.framing) for example in examples]
            objective = Objective(engine.model, targets, self.explain, size, self.precision)
            batch = _Batch(images, objective, boxes)
            engine.observe(objective, images)
            mapped = list(self._mapped(batch))
            mapped += [_control(batch, name, mapped) for name in self.controls]
            places = [n for n, s in enumerate(examples) if s.image.image_id in self.reference_images]
            cells = [mapping.cell for mapping in mapped]
            converged = self._references_at(places, batch, cells) if places else []
            self._keep(engine, [example.image.image_id for example in examples], mapped, converged)
            columns = self._columns(batch, mapped, converged)
            for index, mapping in enumerate(mapped):
                evaluations = mapping.attribution.gradient_evaluations.tolist()
                for row, example in enumerate(examples):
                    values = {
                        "image_id": example.image.image_id,
                        "label": example.image.label,
                        "target": example.target,
                        **asdict(mapping.cell),
                        "gradient_evaluations": evaluations[row],
                        "seconds": mapping.seconds * evaluations[row],
                        **{name: column[index][row] for name, column in columns.items()},
                    }
                    check_row(values, [METRICS[name] for name in self.metrics])
                    yield values

    def files(self, shard: str, image_ids: Collection[str]) -> dict[str, frozenset[str]]:
        """The files of a shard's maps, where they are stored, and the images in each."""
        return {} if self.maps is None else self.maps.files(shard, image_ids)

    def _keep(
        self,
        engine: Engine,
        image_ids: Sequence[str],
        mapped: Sequence["_Mapped"],
        converged: Sequence[Reference | None],
    ) -> None:
        """Give the engine the maps that are stored, converged ones once a path."""
        if self.maps is None:
            return
        maps = {m.cell: m.attribution.maps for m in mapped if m.cell in self.maps.cells}
        for mapping, reference in zip(mapped, converged, strict=bool(converged)):
            for cell in self.maps.converged:
                if reference is not None and cell.path == mapping.cell.path:
                    maps[cell] = reference.maps
        for cell, values in maps.items():
            table = self.maps.table(cell, image_ids, values)
            if len(table):
                engine.tables.setdefault(map_file(cell, SHARD), []).append(table)

    def _mapped(self, batch: "_Batch") -> Iterator["_Mapped"]:
        """Every cell's maps. Cells of a path that share samples are computed together, others one by one."""
        together: dict[tuple[str, Cell | None], list[Cell]] = {}
        for cell, placed in sorted(self.placed.items(), key=lambda item: item[0]):
            alone = None if shares(ESTIMATORS[cell.estimator], placed) else cell
            together.setdefault((cell.path, alone), []).append(cell)
        for (label, alone), cells in together.items():
            members = [(ESTIMATORS[cell.estimator], self.placed[cell]) for cell in cells]
            start = time.perf_counter()
            results = attribute_together(batch.objective, self.paths[label].through(batch.images), members)
            if alone is None:
                cost = cost_together(self.paths[label], members, self.explain, batch.size)
                gradients = len(batch.images) * cost.gradients
            else:
                gradients = int(results[0].gradient_evaluations.sum())
            seconds = _seconds_since(start, batch.images) / gradients
            yield from (_Mapped(cell, one, seconds) for cell, one in zip(cells, results, strict=True))

    def _references_at(
        self, places: list[int], batch: "_Batch", cells: Sequence[Cell]
    ) -> list[Reference | None]:
        """Those of the images at `places` of a batch; zero for others, with which nothing is compared."""
        if len(places) == len(batch.images):
            return self._references(batch, cells)
        some = _Batch(batch.images[places], batch.objective.of(places))
        some_references = self._references(some, cells)
        spread = {
            id(one): one.spread(places, len(batch.images)) for one in some_references if one is not None
        }
        return [None if one is None else spread[id(one)] for one in some_references]

    def _references(self, batch: "_Batch", cells: Sequence[Cell]) -> list[Reference | None]:
        """Each cell's converged maps, where its own tend to them."""
        converged: dict[Cell, Reference] = {}
        for label, edges in self.reference_edges.items():
            members = [c for c in cells if c.path == label and ESTIMATORS[c.estimator].tends_to_integral]
            if members:
                schedules = [self.placed[cell].schedule for cell in members]
                path = self.paths[label].through(batch.images)
                converged |= zip(members, references(path, batch.objective, schedules, edges), strict=True)
        return [converged.get(cell) for cell in cells]

    def _columns(
        self, batch: "_Batch", mapped: Sequence["_Mapped"], converged: Sequence[Reference | None]
    ) -> dict[str, list[list[Any]]]:
        """Every measured column: a list over cells of lists over images."""
        maps = torch.stack([mapping.attribution.maps for mapping in mapped])
        check_maps([mapping.cell for mapping in mapped], maps, converged)
        measured = MapBatch(
            replace(batch.objective, precision=self.score_precision),
            batch.images,
            maps,
            f_input=mapped[0].attribution.f_input,
            f_baseline=torch.stack([mapping.attribution.f_baseline for mapping in mapped]),
            references=converged,
            seed=self.seed,
            computed_in=batch.objective.rounding_type(batch.images.dtype),
            boxes=batch.boxes,
            box_tolerance=self.box_tolerance,
            paths=[self.paths.get(mapping.cell.path) for mapping in mapped],
        )
        columns = {
            "f_input": measured.f_input.expand(measured.f_baseline.shape).tolist(),
            "f_baseline": measured.f_baseline.tolist(),
        }
        for name in self.metrics:
            for column, values in METRICS[name].compute(measured).items():
                # Texts belong to an image and hold for all of its maps.
                columns[column] = (
                    values.tolist() if isinstance(values, Tensor) else [list(values)] * len(mapped)
                )
        return columns


@dataclass(frozen=True, eq=False)
class _Batch:
    """Images (B, C, H, W) that are computed together, what is explained of them, and the boxes in each."""

    images: Tensor
    objective: Objective
    boxes: Sequence[Sequence[Box] | None] = ()

    @property
    def size(self) -> int:
        """That of a micro-batch."""
        return self.objective.internal_batch_size


@dataclass(frozen=True, eq=False)
class _Mapped:
    """A cell's maps of a batch, and the seconds that one of its gradients took."""

    cell: Cell
    attribution: Attribution
    seconds: float


def _control(batch: _Batch, name: str, others: Sequence[_Mapped]) -> _Mapped:
    """A control's maps. There is no path, so f at its start is NaN and completeness is not defined.

    f at the images is that of the `others` of the batch, where there are any.
    """
    f_input = others[0].attribution.f_input if others else batch.objective.values(batch.images)
    none = torch.zeros(len(f_input), dtype=torch.int64, device=f_input.device)
    nowhere = torch.full_like(f_input, torch.nan)
    result = Attribution(CONTROLS[name](batch.images), f_input, nowhere, none)
    return _Mapped(control_cell(name), result, 0.0)


def _seconds_since(start: float, images: Tensor) -> float:
    """Wall-clock seconds since `start`, once the device has done what it was asked."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
