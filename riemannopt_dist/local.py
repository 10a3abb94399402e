"""Small work in this process, without Ray: fit a profile, explain one image."""

import numpy as np
import torch

from riemannopt_dist.data.decoding import decode_image, prepare_image
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.reading import read_image
from riemannopt_dist.estimators.base import LINEAR
from riemannopt_dist.methods import attribute
from riemannopt_dist.metrics.completeness import relative_error
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective, logits_of
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.profile import Profile, Variations, equispaced
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.quadrature.variation import path_variation
from riemannopt_dist.reports.figures import attribution_figure, picture
from riemannopt_dist.run.classifier import checked_classifier
from riemannopt_dist.run.memory import CPU_BATCH
from riemannopt_dist.run.progress import meter
from riemannopt_dist.run.stages.batches import image_batches
from riemannopt_dist.run.stages.engine import Engine
from riemannopt_dist.run.stages.tally import Tally
from riemannopt_dist.storage.redaction import without_secrets

SUITED = {"rescale": "roughness", "gauss_legendre": "equidistribution"}
"""The placement that suits an estimator best, where it is not exact."""


def fit_profile(model_name: str, weights: str | None, source: str, count: int, samples: int) -> Profile:
    """The Integrated Gradients profile over the first `count` readable images of `source`.

    The class explained is the predicted one. Raises ValueError where there is no such model or no image.
    """
    device = _device()
    model = checked_classifier(model_name, weights).to(device)
    refs = list_images(source)
    engine = Engine(model, device, files_of(source), CPU_BATCH, Tally())
    alphas = equispaced(samples)
    variations: list[Array] = []
    with meter("fit", min(count, len(refs))) as progress:
        for (ref,), (image,) in image_batches(refs, engine, 1):
            if len(variations) == count:
                break
            if isinstance(image, UnreadableImage):
                continue
            images = image[None].to(device)
            targets = logits_of(model, images).argmax(dim=1)
            path = StraightPath.from_black(images)
            variation = path_variation(path, Objective(model, targets), alphas)
            if not np.isfinite(variation).all():
                raise ValueError(f"{ref.image_id}: the gradients along its path are not finite")
            variations.append(variation)
            progress.advance(1)
    if not variations:
        raise ValueError(f"{without_secrets(source)}: none of its {len(refs)} files is a readable image")
    return Variations(alphas, np.concatenate(variations)).profile()


def explain_image(
    path: str,
    model_name: str,
    weights: str | None,
    target: int | None,
    samples: int,
    estimator: str,
    profile: str | None,
    kind: str = "png",
) -> tuple[bytes, str]:
    """A picture of the image beside its Integrated Gradients map, and a sentence on how complete the map is.

    `estimator` is one of ESTIMATORS. `profile` is the JSON text of a fitted profile, by which the samples are
    placed as suits the estimator best (`SUITED`). Linear without. `kind` is the picture's format, such as
    "png" or "svg".
    """
    model = checked_classifier(model_name, weights).to(_device())
    images = _read(path, model)
    logits = logits_of(model, images)[0]
    if target is not None and target >= len(logits):
        raise ValueError(f"target: expected a class below {len(logits)}, got {target}")
    explained = int(logits.argmax()) if target is None else target
    placement = LINEAR if profile is None else SUITED.get(estimator, "exact")
    result = attribute(
        model,
        images,
        torch.tensor([explained], device=images.device),
        estimator=estimator,
        placement=placement,
        samples=samples,
        profile=None if profile is None else Profile.from_json(profile),
    )
    if not all(bool(values.isfinite().all()) for values in (result.maps, result.f_input, result.f_baseline)):
        raise ValueError(
            f"{without_secrets(path)}: its map is not finite, or the output at an end of its path"
        )
    error = float(relative_error(result))
    caption = f"IG, {samples} {placement} {estimator} points\nrelative error {error:.3f}"
    values = result.maps[0].double().cpu().numpy()
    title = f"class {explained}, probability {float(result.f_input):.3f}"
    figure = attribution_figure(_shown(images), [(caption, values)], title)
    return picture(figure, kind), f"{title}; {caption.replace(chr(10), ', ')}"


def _read(path: str, model: Classifier) -> torch.Tensor:
    try:
        image = prepare_image(decode_image(read_image(path)), model.input_size, model.resize_size)
    except UnreadableImage as error:
        raise ValueError(f"{without_secrets(path)}: {error}") from None
    return image[None].to(_device())


def _shown(images: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return images[0].permute(1, 2, 0).double().cpu().numpy()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
