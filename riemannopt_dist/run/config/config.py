"""All that a run is told, what of it the fingerprint covers, and what keeps a run from going on."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from riemannopt_dist.choices import Output, Select
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.run.config.boxes import BoxesConfig
from riemannopt_dist.run.config.fit import FitConfig
from riemannopt_dist.run.config.grid import GridBlock
from riemannopt_dist.run.config.maps import MapsConfig
from riemannopt_dist.run.config.model import ModelConfig
from riemannopt_dist.run.config.precision import PrecisionConfig
from riemannopt_dist.run.config.reference import ReferenceConfig
from riemannopt_dist.run.config.scaling import ScalingConfig
from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.targets import TargetChoice
from riemannopt_dist.run.config.values import (
    CountOrAuto,
    DistinctItems,
    Items,
    PositiveInt,
    Share,
    Text,
    entry_of,
)
from riemannopt_dist.run.config.wording import shortened
from riemannopt_dist.run.grid import Cell, control_cell
from riemannopt_dist.storage.digest import digest_of_values
from riemannopt_dist.storage.redaction import without_credentials, without_secrets

INDIFFERENT = ("output", "scaling", "maps", "batch_size", "internal_batch_size")
"""Keys that change no result beyond rounding: a run goes on with others."""
GROWING = ("limit", "grid", "metrics", "controls")
"""Keys of which a run may be given more than it has: it is extended then."""


def _extension(text: str) -> str:
    if not text.strip("."):
        raise ValueError(f"expected an extension such as jpg, got {text!r}")
    return text.removeprefix(".").lower()


MetricName = Annotated[str, AfterValidator(entry_of(METRICS))]
ControlName = Literal["random", "edges"]
Extension = Annotated[Text, AfterValidator(_extension)]


class Config(Strict):
    """Everything that a run is told.

    images        where the images are: a folder (a folder a synset, or flat), Parquet or WebDataset tars (one
                  file, a folder of them, or data-{000..127}.tar), or a list of addresses (.csv, or Parquet,
                  with columns uri and perhaps label), on a disk that all nodes see, at s3://, gs:// or, but
                  for folders, https://; or "demo:"
    labels        a file with the labels of ILSVRC2012's validation images: LOC_val_solution.csv, or
                  ILSVRC2012_validation_ground_truth.txt with meta.mat beside it
    image_extensions   those of images in WebDataset tars, such as [left.png] for key.left.png; those of all
                  image formats by default
    output        the run directory
    model         the classifier
    explain       the output explained: the target's softmax probability, or its logit
    metrics       what is measured of every map; see riemannopt_dist/metrics/table.py
    controls      maps that know nothing of the model, to compare scores with: random, edges
    grid          blocks of cells: paths × estimators × placements × samples
    fit           the subset that the schedules are fitted on, drawn with `seed`
    reference     the converged maps that the metric reference compares with
    precision     of the model's products: maps in fp32 or tf32, scores in fp32, tf32, fp16 or bf16
    boxes         the boxes that the metric pointing_game plays with: a folder of XML files
    maps          which attribution maps are stored, if any; {} stores all
    select        the images used: those in which the model sees the label's class (correct), those in which
                  it does not (wrong), or all; images without a label always are
    min_probability   of the class that the model sees, for an image to be used
    targets       the class explained: the label where there is one (label), the class that the model sees
                  (predicted), the second most probable one (runner_up), or one class for all images, by its
                  index or name; of a list of classes the one that the model finds most probable in the image
    limit         at most so many of the other images are evaluated, drawn with `seed` (all by default)
    shard_size    images a result file, at most
    batch_size    images computed together by a worker
    internal_batch_size   gradients computed at once, at most: bounds the memory. "auto" takes what a GPU has
                  room for, and 16 on a CPU. A worker whose device runs out of memory goes on with half of it
    scaling       workers, attempts, time limits, patience
    """

    former_keys: ClassVar[Mapping[str, str]] = {
        "guided": "is told with its path now: paths: [{path: guided_ig, fraction: 0.5}]",
        "means": "is called 'scaling' now",
    }

    images: Text
    labels: Text | None = None
    image_extensions: Annotated[Items[Extension], Field(min_length=1)] | None = None
    output: Text
    model: ModelConfig
    explain: Output = "probability"
    metrics: DistinctItems[MetricName] = ("completeness", "insertion")
    controls: DistinctItems[ControlName] = ()
    grid: Annotated[Items[GridBlock], Field(min_length=1)] = (GridBlock(),)
    fit: FitConfig = FitConfig()
    reference: ReferenceConfig = ReferenceConfig()
    precision: PrecisionConfig = PrecisionConfig()
    boxes: BoxesConfig | None = None
    maps: MapsConfig | None = None
    select: Select = "correct"
    min_probability: Share = 0.0
    targets: TargetChoice = "label"
    limit: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    shard_size: PositiveInt = 32
    batch_size: PositiveInt = 8
    internal_batch_size: CountOrAuto = "auto"
    scaling: ScalingConfig = ScalingConfig()

    @model_validator(mode="after")
    def _maps_of_cells(self) -> Self:
        if self.maps is not None:
            self.maps.chosen(self.cells())
            if self.maps.converged and "reference" not in self.metrics:
                raise ValueError("maps.converged: converged maps come with the metric reference")
        return self

    def cells(self) -> list[Cell]:
        """The grid's distinct cells, in order."""
        return sorted({cell for block in self.grid for cell in block.cells()})

    def row_cells(self) -> list[Cell]:
        """The cells of an image's rows: those of the grid, and of the controls."""
        return [*self.cells(), *map(control_cell, self.controls)]

    def paths(self) -> dict[str, PathFamily]:
        """The grid's paths by their labels."""
        return {family.label: family for block in self.grid for family in block.families()}

    def fitted_paths(self) -> list[str]:
        """The paths that some cell of the grid takes fitted points on."""
        return sorted({cell.path for cell in self.cells() if cell.fitted})

    def differences(self, earlier: "Config") -> list[str]:
        """What keeps a run of the configuration `earlier` from going on as one of this; [] if nothing.

        Those are keys that change results and differ, and what this has less of, in words.
        """
        free = (*INDIFFERENT, *GROWING, *(() if "reference" in earlier.metrics else ("reference",)))
        free += ("boxes",) if earlier.boxes is None else ()
        mine, its = self.published(), earlier.published()
        changed = [key for key in mine if key not in free and its[key] != mine[key]]
        return [*changed, *self._shortfalls(earlier)]

    def _shortfalls(self, earlier: "Config") -> Iterator[str]:
        """What this configuration has less of than `earlier`, in words."""
        if self.limit is not None and (earlier.limit is None or self.limit < earlier.limit):
            than = "where it has none" if earlier.limit is None else f"being less than its {earlier.limit}"
            yield f"limit, {self.limit} {than}"
        its, mine = (
            {"grid": one.cells(), "metrics": one.metrics, "controls": one.controls} for one in (earlier, self)
        )
        for key, there in its.items():
            if lacking := [str(name) for name in there if name not in mine[key]]:
                yield f"{key}, without its {shortened(', '.join(lacking))}"

    def published(self) -> dict[str, Any]:
        """All keys as plain values, without the credentials that addresses hold.

        Those of images, labels and output have no options either.
        """
        fields = self.model_dump(mode="json")
        addresses = {key: fields[key] for key in ("images", "labels", "output") if fields[key] is not None}
        bare = {key: without_secrets(address) for key, address in addresses.items()}
        return {key: _without_credentials(value) for key, value in fields.items()} | bare

    def baseline_digests(self) -> dict[str, str]:
        """Those of the pictures that paths begin at, by the paths' labels.

        Raises ValueError for pictures that cannot be read.
        """
        digests = {
            label: family.digest() for label, family in self.paths().items() if hasattr(family, "digest")
        }
        return {label: digest for label, digest in digests.items() if digest is not None}

    def fingerprint(self, weights_digest: str) -> str:
        """A digest of all that results depend on: weights, cells, and all keys but those `INDIFFERENT`.

        Values that are their defaults do not count, so that a new key strands no run.
        """
        fields: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        published = self.published()
        told = {key: value for key, value in fields.items() if key not in (*INDIFFERENT, "grid")}
        decisive = {key: _without_credentials(value) for key, value in told.items()}
        decisive |= {key: published[key] for key in ("images", "labels") if key in decisive}
        decisive |= {"cells": [str(cell) for cell in self.cells()], "weights_digest": weights_digest}
        return digest_of_values(decisive)


def _without_credentials(value: Any) -> Any:
    """A plain value of whose texts none holds a secret: whatever the key, a text may be an address."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, dict):
        return {key: _without_credentials(item) for key, item in value.items()}
    return [*map(_without_credentials, value)] if isinstance(value, list) else value
