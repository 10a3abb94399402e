"""The configuration of a run: what is computed, which the fingerprint covers, and with how many workers."""

import fnmatch
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from riemannopt_dist.choices import (
    DEFAULT_AVERAGE,
    HF,
    TARGET_RULES,
    Average,
    MapPrecision,
    Output,
    Precision,
    Refine,
    Select,
    Targets,
    height_and_width,
)
from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.metric import BOX_TOLERANCE
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.paths.table import PATHS, parsed_label, path_family
from riemannopt_dist.quadrature.placement.table import OUTPUT_PLACEMENTS, PLACEMENTS
from riemannopt_dist.registry import Registry
from riemannopt_dist.run.grid import Cell, control_cell, make_cell
from riemannopt_dist.run.outputs.maps import Channels, StoredType
from riemannopt_dist.run.wording import sentence, shortened, shown
from riemannopt_dist.run.yaml_text import parse_yaml
from riemannopt_dist.storage.digest import digest_of_values
from riemannopt_dist.storage.errors import PATIENCE
from riemannopt_dist.storage.redaction import scrubbed, without_secrets

if TYPE_CHECKING:
    from riemannopt_dist.models.recipe import ModelSettings

T = TypeVar("T")

INDIFFERENT = ("output", "scaling", "maps", "batch_size", "internal_batch_size")
"""Keys that change no result beyond rounding: a run goes on with others."""
GROWING = ("limit", "grid", "metrics", "controls")
"""Keys of which a run may be given more than it has: it is extended then."""
TOLD = 10
"""Problems that a message names."""


def _entry_of(registry: Registry[Any], *besides: str) -> Callable[[str], str]:
    """What checks that a registry has an entry of a name, or that it is one of `besides`."""

    def checked(name: str) -> str:
        registry.check(name, besides)
        return name

    return checked


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"expected each at most once, got {value!r} twice")
    return values


def _extension(text: str) -> str:
    if not text.strip("."):
        raise ValueError(f"expected an extension such as jpg, got {text!r}")
    return text.removeprefix(".").lower()


def _model_name(name: str) -> str:
    """A folder's path made absolute: workers run in other directories."""
    is_folder = name.startswith(HF)
    return f"{HF}{Path(name.removeprefix(HF)).expanduser().absolute()}" if is_folder else name


def _size(value: Any) -> Any:
    """Pixels as they are told, checked."""
    if value is not None:
        height_and_width(value)
    return tuple(value) if isinstance(value, list) else value


def _count_or_auto(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validated(value)
    except ValidationError:
        raise ValueError(f"expected a count or auto, got {shown(value)}") from None


def _targets(value: Any) -> Any:
    several = isinstance(value, list | tuple)
    told = tuple(value) if several else (value,)
    if not told or not all(map(_is_class, told)) or (several and any(one in TARGET_RULES for one in told)):
        rules = ", ".join(TARGET_RULES)
        raise ValueError(f"expected {rules}, or a class by its index or name, or several, got {shown(value)}")
    return _distinct(told) if several else value


def _is_class(value: Any) -> bool:
    """Whether a value may be the index or the name of a class."""
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return is_index or (isinstance(value, str) and value != "")


# Lists, in a file: strict validation would take tuples alone.
Items = Annotated[tuple[T, ...], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]
MetricName = Annotated[str, AfterValidator(_entry_of(METRICS))]
PathName = Annotated[str, AfterValidator(_entry_of(PATHS))]
EstimatorName = Annotated[str, AfterValidator(_entry_of(ESTIMATORS))]
PlacementName = Annotated[str, AfterValidator(_entry_of(PLACEMENTS, LINEAR, ADAPTIVE, *OUTPUT_PLACEMENTS))]
CountOrAuto = Annotated[PositiveInt | Literal["auto"], WrapValidator(_count_or_auto)]
ControlName = Literal["random", "edges"]
Extension = Annotated[Text, AfterValidator(_extension)]


class _Strict(BaseModel):
    """Frozen; an unknown key is an error, a number that is infinite or NaN, and a value of another type.

    So true is not 1, 16.0 not 16, "16" no number, and 16 no text.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Strict):
    """The classifier: a name that `load_model` knows, its weights, and what else `load_model` takes.

    `weights` may be a training script's checkpoint of a network with `num_classes` classes. Where its images
    are not prepared as for the published weights, `input_size` is what it takes and `resize_size` what an
    image just covers, in its own shape, before the middle of it is cut: the side of a square or [height,
    width]. `channels` is 1 for grey images, 3 for RGB, and `mean` and `std` have a value for each.
    `output_key` is the key or place of the logits in an output that is a mapping or a tuple.

    `classes` are the names of its classes in order, or a file with a name a line: folders of these names
    label the images in them.
    """

    name: Annotated[str, AfterValidator(_model_name)]
    weights: str | None = None
    num_classes: PositiveInt | None = None
    mean: Items[float] | None = None
    std: Items[float] | None = None
    input_size: Size | None = None
    resize_size: Size | None = None
    channels: Literal[1, 3] | None = None
    output_key: Text | Annotated[int, Field(ge=0)] | None = None
    classes: Text | Items[Text] | None = None

    @property
    def settings(self) -> "ModelSettings":
        """The settings of `load_model`."""
        settings: ModelSettings = self.model_dump(exclude={"name", "weights", "classes"})  # type: ignore[assignment]
        return settings

    def class_names(self) -> tuple[str, ...] | None:
        """The names of its classes, where they are told. Raises ValueError for a file that cannot be read."""
        if not isinstance(self.classes, str):
            return self.classes
        try:
            lines = Path(self.classes).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"model.classes: expected a file with a name a line: {error}") from None
        return tuple(line.strip() for line in lines if line.strip())


class FitConfig(_Strict):
    """The subset on which |g′| is estimated: its size and the equispaced points along each image's path.

    `refine` adds a second pass with as many points, placed by the first; "auto" where the profile lies in a
    part of the path. `average` is over images: their mean, the mean of images that are each in units of their
    own ∫|g′|, or the median of these. The placement riemannopt takes the median of the first pass whatever
    it is, and roughness an average of its own.

    With `profiles` nothing is fitted: it is a folder of profiles fitted before, <path>.json, such as the
    schedules/ of another run of the same model, or "demo:" for those of EfficientNet-Lite0 that come along.
    """

    profiles: Text | None = None
    images: Annotated[int, Field(ge=0)] = 200
    samples: Annotated[int, Field(ge=2)] = 128
    refine: Refine = "auto"
    average: Average = DEFAULT_AVERAGE

    @model_validator(mode="before")
    @classmethod
    def _none_to_fit_on(cls, fields: Any) -> Any:
        known = isinstance(fields, dict) and fields.get("profiles") is not None
        return {"images": 0, **fields} if known else fields

    @field_validator("images")
    @classmethod
    def _enough(cls, images: int, info: ValidationInfo) -> int:
        if info.data.get("profiles") is None and images < 2:
            raise ValueError(f"expected at least 2, got {images}")
        if info.data.get("profiles") is not None and images:
            raise ValueError(f"expected none beside profiles, got {images}")
        return images


class PathConfig(BaseModel):
    """A path with parameters: `baseline` of ig and guided_ig, `sigma_max` of blur_ig, and so on.

    They are those of its class in riemannopt_dist/paths/table.py, or of a user's own.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)

    path: PathName

    @property
    def family(self) -> PathFamily:
        """The path's family. Raises ValueError for parameters that it lacks."""
        return path_family(self.path, self.model_extra)


def _as_path(value: Any) -> Any:
    """A name is a path by its defaults; so is one with parameters as tables have it."""
    if not isinstance(value, str):
        return value
    name, parameters = parsed_label(value)
    return {"path": name, **parameters}


def _with_family(path: PathConfig) -> PathConfig:
    """Raise ValueError for parameters that a path lacks."""
    assert path.family.label
    return path


PathChoice = Annotated[PathConfig, BeforeValidator(_as_path), AfterValidator(_with_family)]


class ReferenceConfig(_Strict):
    """The converged maps that the metric `reference` compares with.

    A trapezoid of `intervals` on the path's profile (equal intervals without one); for Guided IG, 8 intervals
    on each step of each schedule's own walk. For the first `images` of those evaluated, in the order in which
    they were drawn, or for all if not given.
    """

    images: PositiveInt | None = None
    intervals: Annotated[int, Field(ge=2, multiple_of=2)] = 1024


class PrecisionConfig(_Strict):
    """What a model's products are computed in: for maps (and their profiles), and for scores.

    tf32 rounds what goes into them to ten bits, on a GPU that has it; fp16 and bf16 are torch's autocast.
    What it costs is told by docs/precision.md, and by each run of itself.
    """

    maps: MapPrecision = "fp32"
    scores: Precision = "fp32"


class BoxesConfig(_Strict):
    """The boxes of objects that pointing_game plays with: a folder of XML files, such as ImageNet's.

    An image's file is at its path or has its name, with the ending xml. A hit is in a box, or at most
    `tolerance` pixels of the model's input beside one.
    """

    folder: Text
    tolerance: Annotated[float, Field(ge=0)] = BOX_TOLERANCE


def _as_boxes(value: Any) -> Any:
    """A text is a folder."""
    return {"folder": value} if isinstance(value, str) else value


RENAMED_KEYS = {"methods": "paths", "schedules": "placements", "rules": "estimators"}
"""Keys of a block that are no more, and what they are called now."""


class GridBlock(_Strict):
    """A full product of paths, estimators, placements and sample counts.

    A path is a name, or a name with parameters: {path: ig, baseline: white}. For each path and each of
    `tolerances` there is a cell besides, whose images take as many points as they need for it, at most
    `maximum`: the softmax_trapezoid with the placement adaptive, whatever the block's own. Beside them the
    product may be empty.
    """

    paths: Annotated[Items[PathChoice], Field(min_length=1)] = (PathConfig(path="ig"),)
    estimators: Items[EstimatorName] = ("right",)
    placements: Items[PlacementName] = (LINEAR, "riemannopt")
    samples: Items[PositiveInt] = (16, 32, 64, 128)
    tolerances: Items[Annotated[float, Field(gt=0)]] = ()
    maximum: PositiveInt = 256

    @model_validator(mode="before")
    @classmethod
    def _current_keys(cls, fields: Any) -> Any:
        for key in RENAMED_KEYS.keys() & (fields if isinstance(fields, dict) else {}):
            raise ValueError(f"{key!r} is called {RENAMED_KEYS[key]!r} now")
        return fields

    @model_validator(mode="after")
    def _cells_exist(self) -> Self:
        if not self.cells():
            empty = next(key for key in ("placements", "estimators", "samples") if not getattr(self, key))
            raise ValueError(f"{empty}: expected at least one, got []")
        return self

    def families(self) -> list[PathFamily]:
        """The block's paths."""
        return [path.family for path in self.paths]

    def cells(self) -> list[Cell]:
        """The block's cells. Raises ValueError for a combination that does not exist."""
        families = self.families()
        product = itertools.product(families, self.estimators, self.placements, self.samples)
        within = itertools.product(families, self.tolerances)
        return [make_cell(*choice) for choice in product] + [
            make_cell(family, "softmax_trapezoid", ADAPTIVE, self.maximum, tolerance)
            for family, tolerance in within
        ]


class MapsConfig(_Strict):
    """Which attribution maps are stored, and how.

    Those of the `cells` whose names match one of the patterns, such as "ig/*/linear/16" (`*` is any text),
    and of the first `images` of those evaluated, in the order in which they were drawn; all unless said.
    With `converged` those that the metric reference compares with are stored as well, of the paths that are
    known beforehand. `channels` are summed or kept. float16 halves the space: values are in units of a map's
    largest one.
    """

    channels: Channels = "sum"
    dtype: StoredType = "float16"
    cells: Annotated[Items[Text], Field(min_length=1)] = ("*",)
    images: PositiveInt | None = None
    converged: bool = False

    def chosen(self, cells: Iterable[Cell]) -> frozenset[Cell]:
        """Of cells those that match. Raises ValueError for a pattern that none does."""
        names = {cell: str(cell) for cell in cells}
        for pattern in self.cells:
            if not fnmatch.filter(names.values(), pattern):
                raise ValueError(f"maps.cells: no cell of the grid is called {pattern!r}")
        return frozenset(c for c, name in names.items() if any(fnmatch.fnmatch(name, p) for p in self.cells))


class ScalingConfig(_Strict):
    """What a run may use. None of it changes a result, so a run may be resumed with another.

    There are as many workers as the cluster has room for, which is looked up again all along: at most
    `max_workers`, and at least `min_workers`, for which room is asked where there is none, so that an
    autoscaler adds nodes.

    A storage that does not answer is waited for, `patience` seconds at most. Images that it does not give
    then are given up on until the command is repeated, as those that fail are. With more than a share
    `max_given_up` of a stage's images given up on, a run is no success.
    """

    min_workers: PositiveInt = 1
    max_workers: PositiveInt | None = None
    cpus_per_worker: PositiveInt = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    attempts: PositiveInt = 3
    time_limit: Annotated[float, Field(gt=0)] = 3600.0
    patience: Annotated[float, Field(gt=0)] = PATIENCE
    max_given_up: Share = 0.01

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise ValueError(f"max_workers: expected at least min_workers = {self.min_workers}")
        return self


class Config(_Strict):
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

    images: Text
    labels: Text | None = None
    image_extensions: Annotated[Items[Extension], Field(min_length=1)] | None = None
    output: Text
    model: ModelConfig
    explain: Output = "probability"
    metrics: Annotated[Items[MetricName], AfterValidator(_distinct)] = ("completeness", "insertion")
    controls: Annotated[Items[ControlName], AfterValidator(_distinct)] = ()
    grid: Annotated[Items[GridBlock], Field(min_length=1)] = (GridBlock(),)
    fit: FitConfig = FitConfig()
    reference: ReferenceConfig = ReferenceConfig()
    precision: PrecisionConfig = PrecisionConfig()
    boxes: Annotated[BoxesConfig | None, BeforeValidator(_as_boxes)] = None
    maps: MapsConfig | None = None
    select: Select = "correct"
    min_probability: Share = 0.0
    targets: Annotated[Targets, BeforeValidator(_targets)] = "label"
    limit: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    shard_size: PositiveInt = 32
    batch_size: PositiveInt = 8
    internal_batch_size: CountOrAuto = "auto"
    scaling: ScalingConfig = ScalingConfig()

    def cells(self) -> list[Cell]:
        """The grid's distinct cells, in order."""
        return sorted({cell for block in self.grid for cell in block.cells()})

    def row_cells(self) -> list[Cell]:
        """The cells of an image's rows: those of the grid, and of the controls."""
        return [*self.cells(), *map(control_cell, self.controls)]

    def paths(self) -> dict[str, PathFamily]:
        """The grid's paths by their labels."""
        return {family.label: family for block in self.grid for family in block.families()}

    @model_validator(mode="after")
    def _maps_of_cells(self) -> Self:
        if self.maps is not None:
            self.maps.chosen(self.cells())
            if self.maps.converged and "reference" not in self.metrics:
                raise ValueError("maps.converged: converged maps come with the metric reference")
        return self

    @model_validator(mode="before")
    @classmethod
    def _current_keys(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "guided" in fields:
            raise ValueError("'guided' is told with its path now: paths: [{path: guided_ig, fraction: 0.5}]")
        if isinstance(fields, dict) and "means" in fields:
            raise ValueError("'means' is called 'scaling' now")
        return fields

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
        """All keys as plain values, without the credentials and options that addresses hold."""
        fields = self.model_dump(mode="json")
        addresses = {key: fields[key] for key in ("images", "labels", "output") if fields[key] is not None}
        return fields | {key: without_secrets(address) for key, address in addresses.items()}

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
        decisive = {key: value for key, value in fields.items() if key not in (*INDIFFERENT, "grid")}
        decisive |= {key: published[key] for key in ("images", "labels") if key in decisive}
        decisive |= {"cells": [str(cell) for cell in self.cells()], "weights_digest": weights_digest}
        return digest_of_values(decisive)


def load_config(path: str, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration in a YAML file, with `overrides` (None means: not overridden).

    Raises ValueError, in one line, for a file that is missing, not YAML, or holds an unknown or bad key.
    """
    try:
        fields = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"config {path}: not YAML: {error}") from None
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"config {path}: expected keys and values, got {shortened(scrubbed(shown(fields)))}")
    return make_config(_overridden(fields, overrides or {}), f"config {path}")


def check_metrics(config: Config) -> None:
    """Raise ValueError for a metric whose package is not installed, and one that needs boxes without any."""
    for metric in (METRICS[name] for name in config.metrics):
        if metric.needs_boxes and config.boxes is None:
            raise ValueError(
                f"metrics: {metric.name} needs the boxes of objects: give the folder of their XML files, "
                "boxes: FOLDER"
            )
        if metric.requires and importlib.util.find_spec(metric.requires) is None:
            package = metric.requires.replace("_", "-")
            raise ValueError(f"metrics: {metric.name} needs {package}: pip install {package}")


def _overridden(fields: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `overrides` in their place; a mapping among these replaces keys of the one there."""
    merged = dict(fields)
    for key, value in overrides.items():
        if not isinstance(value, dict):
            merged |= {} if value is None else {key: value}
        elif isinstance(below := fields.get(key) or {}, dict):  # else it is bad, and stays so
            changes = {name: change for name, change in value.items() if change is not None}
            merged |= {key: {**below, **changes}} if changes else {}
    return merged


def make_config(fields: dict[str, Any], source: str) -> Config:
    """A Config from plain fields. Raises ValueError naming `source`, the key, its value and what is wrong."""
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        problems = [
            shortened(scrubbed(f"{'.'.join(map(str, problem['loc'])) or 'grid'}: {sentence(problem)}"))
            for problem in error.errors()
            # A list with bad items is called too short besides.
            if problem["type"] != "too_short" or not problem["input"]
        ]
        told = [*problems[:TOLD], *([f"and {len(problems) - TOLD} more"] if problems[TOLD:] else [])]
        raise ValueError(f"{source}: {'; '.join(told)}") from None
