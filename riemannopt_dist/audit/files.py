"""Audits of map files: each map beside its image, in this process and image by image."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from riemannopt_dist.audit.maps import audit_image, fixed_path, most_intervals
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.uri_list import source_files
from riemannopt_dist.map_files.base import ForeignMaps
from riemannopt_dist.map_files.foreign import foreign_maps
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective, Output, logits_of
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.reports.audit_table import ABOUT
from riemannopt_dist.run.memory import measured_batch_size
from riemannopt_dist.run.progress import meter
from riemannopt_dist.run.schemas import AUDIT
from riemannopt_dist.run.stages.base import Row
from riemannopt_dist.run.stages.batches import image_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.storage.redaction import without_secrets

Keys = Mapping[str, str | int]
"""What a file calls its images, by their ids."""


@dataclass(frozen=True)
class Comparison:
    """What maps are compared with: the converged map of a path, of what of the model's output."""

    model: Classifier
    path: PathFamily
    output: Output
    intervals: int

    @property
    def about(self) -> dict[str, str | int]:
        """What a table tells of it, and the most intervals of a sum that is tried."""
        return {
            "model": self.model.name,
            "path": self.path.label,
            "output": self.output,
            "intervals": self.intervals,
            "placement": "linear",
            "most": most_intervals(self.intervals),
        }


def audit_files(maps: str, images: str, comparison: Comparison) -> pa.Table:
    """A row of AUDIT for each map in the files at `maps`, whose images are in the source `images`.

    A map's class is the one that its file tells, else its image's label, else the class predicted. Raises
    ValueError, naming the image, for a map of another shape or that is not finite, for one of an image that
    is not there, and for an image that cannot be read.
    """
    fixed_path(comparison.path)
    methods = _along(comparison.path, foreign_maps(Path(maps)))
    refs = list_images(images)
    keys = [_keys(one, refs, without_secrets(images)) for one in methods]
    chosen = [ref for ref in refs if any(ref.image_id in those for those in keys)]
    model = comparison.model
    device = next(model.parameters()).device
    engine = Engine(model, device, source_files(images), measured_batch_size(model, device, "auto"), Tally())
    rows: list[Row] = []
    with meter("audit", len(chosen)) as progress:
        for (ref,), (image,) in image_batches(chosen, engine, 1):
            if isinstance(image, UnreadableImage):
                raise ValueError(f"{ref.image_id}: {image}")
            rows += _rows(comparison, engine, ref, image[None].to(device), [*zip(methods, keys, strict=True)])
            progress.advance(1)
    return pa.Table.from_pylist(rows, schema=AUDIT).replace_schema_metadata(
        {ABOUT: json.dumps(comparison.about)}
    )


def _along(path: PathFamily, methods: list[ForeignMaps]) -> list[ForeignMaps]:
    """The maps, none of which are known to be along another path."""
    for one in methods:
        if one.path not in ("", path.label):
            raise ValueError(f"maps: {one.name} are along {one.path}, not {path.label}: name that path")
    return methods


def _rows(
    comparison: Comparison,
    engine: Engine,
    ref: ImageRef,
    image: Tensor,
    methods: Sequence[tuple[ForeignMaps, Keys]],
) -> Iterator[Row]:
    """A row for each map of an image (1, C, H, W); those of one class and shape are audited together."""
    logits = logits_of(comparison.model, image)[0]
    default = int(logits.argmax()) if ref.label is None else ref.label
    together: dict[tuple[int, int], list[tuple[str, Tensor]]] = defaultdict(list)
    for one, keys in methods:
        if (key := keys.get(ref.image_id)) is not None:
            if not 0 <= (target := one.targets.get(key, default)) < len(logits):
                raise ValueError(f"{ref.image_id}: expected a class below {len(logits)}, got {target}")
            values = _values(one, key, ref, image)
            together[target, len(values)].append((one.name, values))
    for (target, _), group in together.items():
        targets = torch.tensor([target], device=image.device)
        objective = Objective(comparison.model, targets, comparison.output, engine.internal_batch_size)
        maps = torch.stack([values for _, values in group])
        try:
            audit = audit_image(objective, image, maps, comparison.path, comparison.intervals)
        except ValueError as error:
            raise ValueError(f"{ref.image_id}: {error}") from None
        for place, (name, values) in enumerate(group):
            yield {
                "maps": name,
                "image_id": ref.image_id,
                "target": target,
                "summed": len(values) < image.shape[1],
                "reference_error": float(audit.error[place]),
                "reference_residual": float(audit.residual),
                "completeness_delta": float(audit.completeness_delta[place]),
                "relative_error": float(audit.relative_error[place]),
                **{f"samples_{rule}": int(n[place]) or None for rule, n in audit.samples.items()},
            }


def _values(maps: ForeignMaps, key: str | int, ref: ImageRef, image: Tensor) -> Tensor:
    """The map of an image, (C, H, W), or (1, H, W) summed over channels, float32."""
    values = np.asarray(maps.read(maps.places[key]))
    whole, summed = tuple(image.shape[1:]), tuple(image.shape[2:])
    shapes = {whole: whole, (1, *whole): whole, (np.prod(whole),): whole}
    shapes |= {shape: (1, *summed) for shape in (summed, (1, *summed), (1, 1, *summed), (np.prod(summed),))}
    if values.shape not in shapes or values.dtype.kind not in "fiu":
        raise ValueError(
            f"maps: expected {whole}, or {summed} summed over channels, for {ref.image_id!r} in {maps.name}, "
            f"got {values.dtype} of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"maps: expected finite values for {ref.image_id!r} in {maps.name}, found others")
    return torch.from_numpy(values.astype(np.float32).reshape(shapes[values.shape])).to(image.device)


def _keys(maps: ForeignMaps, refs: Sequence[ImageRef], source: str) -> Keys:
    """What the maps' file calls each image: its id, that without its ending, or its number."""
    stems: dict[str, list[str]] = defaultdict(list)
    for ref in refs:
        stems[str(PurePosixPath(ref.image_id).with_suffix(""))].append(ref.image_id)
    known = {ref.image_id for ref in refs}
    keys: dict[str, str | int] = {}
    for key in maps.places:
        if isinstance(key, int):
            fitting = [refs[key].image_id] if 0 <= key < len(refs) else []
        else:
            fitting = [key] if key in known else stems.get(key, [])
        if len(fitting) != 1:
            reason = f"{len(fitting)} images of this name are" if fitting else "no such image is"
            raise ValueError(
                f"maps: {maps.name} has a map of {key!r}, but {reason} in {source}: expected files named "
                "after their image, or ids of images in them or beside them"
            )
        if fitting[0] in keys:
            raise ValueError(f"maps: {maps.name} has two maps of {fitting[0]!r}: expected one")
        keys[fitting[0]] = key
    return keys
