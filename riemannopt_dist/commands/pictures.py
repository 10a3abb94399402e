"""Photos and maps of a few images of a run, for its report."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from riemannopt_dist.data.classes import CLASSES, class_name
from riemannopt_dist.data.decoding import image_tensor
from riemannopt_dist.data.errors import ReplacedImage, UnreadableImage
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.models.loading import input_sizes
from riemannopt_dist.reports.data import CellKey, Picture
from riemannopt_dist.run.config import Config, make_config
from riemannopt_dist.run.directory import RUN, RunDirectory
from riemannopt_dist.run.examples import evaluated_examples, located
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.outputs.maps import converged_cell, map_file, maps_of
from riemannopt_dist.run.shards import shards_of

Photo = NDArray[np.uint8]
Map = NDArray[np.float32]


def read_pictures(
    directory: RunDirectory, image_ids: Sequence[str], cells: Sequence[CellKey]
) -> dict[str, Picture]:
    """The photos of images, as the model sees them, and their stored maps of `cells`, all of one path.

    A photo that its source does not give any more is missing, with the reason.
    """
    config = make_config(directory.read_run()["config"], directory.storage.uri(RUN))
    shards = shards_of(evaluated_examples(directory.read_images() or [], config), config.shard_size, located)
    places = {e.image.image_id: (key, e) for key, shard in shards.items() for e in shard}
    classes = _classes(directory)
    pictures = {}
    for image_id in image_ids:
        shard, example = places[image_id]
        photo, missing = _photo(example.image, config)
        maps = {cell: _map(directory, _cell(cell), shard, image_id) for cell in cells}
        end = converged_cell(cells[0][0], config.reference.intervals)
        pictures[image_id] = Picture(
            name=class_name(example.target) if classes == CLASSES else f"class {example.target}",
            photo=photo,
            missing=missing,
            maps={cell: values for cell, values in maps.items() if values is not None},
            converged=_map(directory, end, shard, image_id),
        )
    return pictures


def _photo(ref: ImageRef, config: Config) -> tuple[Photo | None, str]:
    """The photo (H, W, 3), or why there is none."""
    try:
        sizes = input_sizes(config.model.name, config.model.weights)
        with ImageReader(files_of(ref.uri), [ref]) as reader:
            tensor = image_tensor(reader.read(ref), *sizes)
    except (UnreadableImage, ReplacedImage, OSError, ValueError) as error:
        return None, str(error)
    return (tensor.permute(1, 2, 0) * 255).round().byte().numpy(), ""


def _map(directory: RunDirectory, cell: Cell, shard: str, image_id: str) -> Map | None:
    """An image's map (H, W) of a cell, summed over channels, None where it is not stored."""
    name = map_file(cell, shard)
    if not directory.storage.exists(name):
        return None
    values = next((each for key, each in maps_of(directory.table(name)) if key == image_id), None)
    return values.sum(0) if values is not None and values.ndim == 3 else values


def _cell(key: CellKey) -> Cell:
    path, estimator, placement, samples, tolerance = key
    return Cell(path, estimator, placement, samples, tolerance or None)


def _classes(directory: RunDirectory) -> int | None:
    """How many classes the model has, as far as the run tells."""
    return next((len(probe.logits) for probe in directory.read_probes()), None)
