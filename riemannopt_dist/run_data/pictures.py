"""Photos and maps of a few images of a run, for its report; no code of the run's model is called for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riemannopt_dist.data.decoding import image_tensor
from riemannopt_dist.data.errors import ReplacedImage, UnreadableImage
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.reports.data import Picture
from riemannopt_dist.reports.pivot import CellKey
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.draw import evaluated_ids
from riemannopt_dist.run.examples import Example, example_of
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.maps import converged_cell, map_file, maps_of
from riemannopt_dist.run.shards import location_of, shards_of
from riemannopt_dist.run.steps import cuts

Photo = NDArray[np.uint8]
Map = NDArray[np.float32]


def read_pictures(
    directory: RunDirectory, image_ids: Sequence[str], cells: Sequence[CellKey]
) -> dict[str, Picture]:
    """The photos of images, as the model sees them, and their stored maps of `cells`, all of one path.

    A photo that its source does not give any more is missing, with the reason.
    """
    run, names = directory.read_run(), directory.read_class_names()
    end = converged_cell(cells[0][0], run["config"]["reference"]["intervals"])
    places, pictures = _places(directory, run), {}
    for image_id in image_ids:
        shard, example = places[image_id]
        photo, missing = _photo(example.image, run.get("sizes"))
        maps = {cell: _map(directory, _cell(cell), shard, image_id) for cell in cells}
        pictures[image_id] = Picture(
            name=f"class {example.target}" if names is None else names[example.target],
            photo=photo,
            missing=missing,
            maps={cell: values for cell, values in maps.items() if values is not None},
            converged=_map(directory, end, shard, image_id),
        )
    return pictures


def _places(directory: RunDirectory, run: Mapping[str, Any]) -> dict[str, tuple[str, Example]]:
    """The shard of each image that the run evaluates, and its example, by its id."""
    config, images = run["config"], directory.read_images() or []
    rows = {row["image_id"]: row for row in images}
    shards = shards_of(
        [rows[name] for name in evaluated_ids(images, config)], config["shard_size"], location_of, cuts(run)
    )
    targets = config.get("targets", "label")
    return {
        row["image_id"]: (key, example_of(row, targets)) for key, shard in shards.items() for row in shard
    }


def _photo(ref: ImageRef, sizes: Sequence[Any] | None) -> tuple[Photo | None, str]:
    """The photo (H, W, 3) as it is framed for a model by `sizes`, see `Framing`, or why there is none."""
    if sizes is None:
        return None, "run.json does not tell the sizes that it is cut to: an earlier version wrote it"
    try:
        with ImageReader(files_of(ref.uri), [ref]) as reader:
            tensor = image_tensor(reader.read(ref), *sizes)
    except (UnreadableImage, ReplacedImage, OSError, ValueError) as error:
        return None, str(error)
    pixels = (tensor.permute(1, 2, 0) * 255).round().byte()
    return pixels.expand(-1, -1, 3).numpy(), ""


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
