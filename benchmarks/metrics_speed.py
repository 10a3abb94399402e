"""The cost of insertion and of the information curves for the maps of a photo, against the bare model.

Without `--images` the photo is scikit-image's coffee. With a folder of photos, a folder a synset, they are
`--count` of those that the model classifies correctly, drawn with a seed: the information curves skip images
whose probability is below 0.8, so that they cost a data set less than an image that they take.

python benchmarks/metrics_speed.py [--maps 24] [--batch 16 32] [--conventions pair fast] [--device cuda]
    [--images FOLDER --count 20]
"""

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from skimage import data
from torch import Tensor

from riemannopt_dist.data.decoding import decode_image, prepare_image
from riemannopt_dist.data.files import files_of
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.data.reading import ImageReader
from riemannopt_dist.metrics.information.conventions import CONVENTIONS
from riemannopt_dist.metrics.information.curves import information_curve
from riemannopt_dist.metrics.insertion import insertion
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import Objective
from riemannopt_dist.run.draw import drawn_order


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall-clock seconds on a GPU; on the CPU those of this process's threads, whatever else is running."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def coffee(size: int) -> Tensor:
    photo = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None, :, :, 100:500].float() / 255
    small = torch.nn.functional.interpolate(photo, (size, size), mode="bilinear", antialias=True)
    return (small * 255).round().clamp(0, 255) / 255


def classified(model: Classifier, folder: str, device: str) -> Iterator[Tensor]:
    """The folder's photos (1, 3, H, W) that the model classifies correctly, in a seeded order."""
    refs = {ref.image_id: ref for ref in list_images(folder)}
    for name in drawn_order(list(refs), 0):
        with ImageReader(files_of(folder), [refs[name]]) as reader:
            photo = decode_image(reader.read(refs[name]))
        image = prepare_image(photo, model.input_size, model.resize_size)[None].to(device)
        with torch.no_grad():
            if int(model(image).argmax()) == refs[name].label:
                yield image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=24)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--conventions", nargs="*", default=["pair", "fast"], choices=list(CONVENTIONS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--images", default=None)
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    device = options.device
    model = load_model("efficientnet_lite0").to(device)
    if options.images is None:
        photos = [coffee(model.input_size[0]).to(device)]
    else:
        found = classified(model, options.images, device)
        photos = [photo for photo, _ in zip(found, range(options.count), strict=False)]
    print(
        f"{device}, {torch.get_num_threads()} threads, {options.maps} maps, {len(photos)} photos", flush=True
    )
    for batch in options.batch:
        measure(model, photos, batch, options)


def measure(model: Classifier, photos: list[Tensor], batch: int, options: argparse.Namespace) -> None:
    """Print what every metric takes, photo by photo, summed over them."""
    passes = options.maps * 19
    bare_time = inserting = 0.0
    taken = dict.fromkeys(options.conventions, 0.0)
    skipped = dict.fromkeys(options.conventions, 0)
    for image in photos:
        objective = Objective(model, model(image).argmax(dim=1), internal_batch_size=batch)
        given = (objective, image, maps_of(image, options.maps))
        pictures = image.expand(batch, -1, -1, -1).contiguous()

        @torch.no_grad()
        def bare(pictures: Tensor = pictures) -> None:
            for start in range(0, passes, batch):
                model(pictures[: min(batch, passes - start)])

        def inserted(given: tuple[object, ...] = given) -> None:
            insertion(*given)

        if image is photos[0]:
            seconds(bare, options.device)
        # The model before and after what is measured, so that a machine whose speed drifts does not matter.
        before, insertion_time, after = (seconds(work, options.device) for work in (bare, inserted, bare))
        bare_time += (before + after) / 2
        inserting += insertion_time
        for convention in options.conventions:

            def curves(given: tuple[object, ...] = given, convention: str = convention) -> None:
                result = information_curve(*given, convention=convention, workers=options.workers)
                skipped[convention] += result.sic_skipped[0] is not None

            taken[convention] += seconds(curves, options.device)
    print(
        f"batch {batch}: model {len(photos) * passes / bare_time:.1f} images/s; insertion at "
        f"{(passes + 2) / passes * bare_time / inserting:.2f} of that",
        flush=True,
    )
    for convention in options.conventions:
        share = CONVENTIONS[convention].steps / 19
        print(
            f"  SIC and AIC, {convention}: {taken[convention] / inserting:.2f} of insertion's time (forward "
            f"passes of an image that is not skipped: {share:.2f}); {skipped[convention]} of {len(photos)} "
            "photos skipped",
            flush=True,
        )


def maps_of(image: Tensor, count: int) -> Tensor:
    """Smoothed noise, weighted with the image: (count, 1, C, H, W)."""
    noise = torch.randn(count, *image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    return image * torch.nn.functional.avg_pool3d(noise, (1, 5, 5), 1, (0, 2, 2))


if __name__ == "__main__":
    main()
