"""The probe of a run: the model's logits of two images, stored when the run begins and computed again later.

Weights are told apart by their digest. Code is not: a network may be built of the same weights and give
something else, for a change in a file of its own or in a package.
"""

import logging
import math
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

import torch

from riemannopt_dist.data.decoding import image_tensor
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import Files
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.data.uri_list import source_files
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.soundness import run_model
from riemannopt_dist.precision import ieee_float32, relative_rounding
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.directory import Probe, RunDirectory, last_maker, maker_now
from riemannopt_dist.storage.errors import StorageError

logger = logging.getLogger(__name__)

IMAGES = 2
TRIED = 8
"""Images of a source that are read, at most, to find those that can be."""


def probes_of(model: Classifier, files: Files, refs: Iterable[ImageRef]) -> list[Probe]:
    """The probes of the first images that can be read and go through the model."""
    probes: list[Probe] = []
    tried = list(islice((ref for ref in refs if ref.reason is None), TRIED))
    with ImageReader(files, tried) as reader:
        for ref in tried:
            with suppress(ValueError, StorageError):  # which a stage meets too, and tells
                probe = _probe(model, reader, ref)
                if all(map(math.isfinite, probe.logits)):
                    probes.append(probe)
            if len(probes) == IMAGES:
                break
    return probes


def check_resumption(directory: RunDirectory, config: Config, model: Classifier) -> None:
    """Tell in a warning what is not as it was when the run began, or went on last: versions, and code.

    Raises ValueError where the model gives other values than then, by more than rounding, and for baselines
    that are other pictures than then.
    """
    run = directory.read_run()
    before, now = last_maker(run), maker_now(config.model.name)
    if changes := _changes(before["versions"], now["versions"]):
        logger.warning("%s: goes on with other versions: %s", directory.storage.root, changes)
    if before["code_digest"] != now["code_digest"]:
        logger.warning(
            "%s: the file of %s is not what it was; its values are compared",
            directory.storage.root,
            config.model.name,
        )
    known = run.get("baselines", {})
    for label, digest in config.baseline_digests().items():
        if known.get(label, digest) != digest:
            raise ValueError(
                f"baseline: the pictures of {label} are not those that the run began with: bring them back, "
                "or choose another output"
            )
    _compare_probes(directory, config, model)


def _compare_probes(directory: RunDirectory, config: Config, model: Classifier) -> None:
    listed = {row["image_id"]: ImageRef(**row) for row in directory.read_listing() or ()}
    stored = [probe for probe in directory.read_probes() if probe.image_id in listed]
    refs = [listed[probe.image_id] for probe in stored]
    compared = 0
    with ImageReader(source_files(config.images), refs) as reader:
        for before, ref in zip(stored, refs, strict=True):
            try:
                now = _probe(model, reader, ref)
            except (UnreadableImage, StorageError):
                continue
            _compare(before, now, next(model.parameters()).dtype)
            compared += 1
    if listed and not compared:
        logger.warning("%s: whether the model gives what it gave cannot be told", directory.storage.root)


def _probe(model: Classifier, reader: ImageReader, ref: ImageRef) -> Probe:
    """Raises UnreadableImage; ValueError where the model fails."""
    image = image_tensor(reader.read(ref), *model.framing)
    with ieee_float32(), torch.no_grad():
        logits = run_model(model, image[None].to(model.mean))[0]
    return Probe(ref.image_id, reader.digests[ref.image_id], tuple(logits.double().tolist()))


def _compare(before: Probe, now: Probe, dtype: torch.dtype) -> None:
    if before.digest != now.digest:
        raise ValueError(
            f"images: {now.image_id} is another file than when the run began: put the old one back, or "
            "choose another output"
        )
    old, new = torch.tensor(before.logits), torch.tensor(now.logits)
    distance = (new - old).abs() if old.shape == new.shape else torch.full_like(old, torch.inf)
    if not float(distance.max()) <= relative_rounding(dtype) * max(1.0, float(old.abs().max())):
        place = int(distance.nan_to_num(torch.inf).argmax())
        raise ValueError(
            f"model: it gives other values than when the run began: the logit of class {place} for "
            f"{now.image_id} was {old[place]:.6g} and is {now.logits[place]:.6g}: restore its code, or "
            "choose another output"
        )


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Each version that differs, old and new."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}" for name in names)
