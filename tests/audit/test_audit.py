"""Audits: the error told is the true one, and the samples told are enough."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import riemannopt_dist as ro
from riemannopt_dist.audit.needed import interval_counts
from riemannopt_dist.commands import app
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.map_files.foreign import foreign_maps
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.testing.small_world import SIDE, make_pictures

MODEL = "riemannopt_dist.testing.small_world:tiny_classifier"
METHODS = ("riemann_left", "riemann_middle", "riemann_trapezoid", "gausslegendre")


@pytest.fixture(scope="module")
def kinked() -> nn.Module:
    """A piecewise-linear network of float64 for pictures of 12 × 12 pixels, 5 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(100, 8),
            nn.ReLU(),
            nn.Linear(8, 5),
        )
    return network.double().eval()


def test_the_error_of_captums_maps_is_that_against_exact_ones(kinked: nn.Module) -> None:
    """Integrated Gradients of a piecewise-linear network is a finite sum over its linear pieces."""
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = kinked(images).argmax(dim=1)
    explainer = IntegratedGradients(kinked)
    maps = torch.stack(
        [
            explainer.attribute(images, target=targets, n_steps=steps, method=method)
            for steps in (16, 64)
            for method in METHODS
        ]
    )
    audit = ro.audit_maps(ro.Objective(kinked, targets, "logit"), images, maps, intervals=1024)
    exact = ro.exact_integrated_gradients(kinked, images, targets)
    true = compare(maps, exact.maps).error
    assert audit.error.shape == (2 * len(METHODS), 2)
    assert float((audit.error - true).abs().max()) < 1e-3
    assert float(true.min()) > 2e-3
    gap = maps.flatten(2).sum(2) - (exact.f_input - exact.f_baseline)
    torch.testing.assert_close(audit.completeness_delta, gap)
    torch.testing.assert_close(audit.relative_error, gap.abs() / (exact.f_input - exact.f_baseline).abs())
    # Captum's own left sum of 16 is ours of 16: it needs no more than itself.
    assert bool((audit.samples["left"][0] <= 16).all())
    assert bool((audit.samples["left"][len(METHODS)] <= 64).all())
    first = maps[0]
    summed = ro.audit_maps(
        ro.Objective(kinked, targets, "logit"), images, first.sum(1, keepdim=True), intervals=1024
    )
    off, size = (part.sum(1).abs().flatten(1).sum(1) for part in (first - exact.maps, exact.maps))
    assert float((summed.error - off / size).abs().max()) < 1e-3


def test_the_samples_told_reach_the_error_and_no_fewer_that_were_tried(
    classifier: nn.Module, photos: Tensor, predictions: Tensor
) -> None:
    image = nn.functional.avg_pool2d(photos[1:2], 4)
    target = classifier(image).argmax(dim=1)
    explainer = IntegratedGradients(lambda inputs: classifier(inputs).softmax(dim=1))
    maps = explainer.attribute(image, target=target, n_steps=6, internal_batch_size=6).float()
    audit = ro.audit_maps(ro.Objective(classifier, target), image, maps, intervals=64)
    path = ro.StraightPath.from_black(image)
    reference = ro.converge(ro.Objective(classifier, target), path, 64).maps
    assert float(audit.error) == pytest.approx(float(compare(maps, reference).error), rel=1e-3)
    tried = [count for part in interval_counts(16) for count in part]
    for rule in ("midpoint", "trapezoid"):
        told = int(audit.samples[rule])
        intervals = told - 1 if rule == "trapezoid" else told
        before = [n for n in tried if n < intervals]
        counts = [n + (rule == "trapezoid") for n in (*before, intervals)]
        schedules = [ro.linear_schedule(count, rule) for count in counts]
        sums = ro.integrate_path(ro.Objective(classifier, target), path, schedules)
        *short, enough = (float(compare(one.maps, reference).error) for one in sums)
        assert enough <= float(audit.error) * (1 + 1e-4)
        assert min(short, default=1.0) > float(audit.error)


def test_a_map_that_is_nearer_than_any_sum_tried_needs_more(kinked: nn.Module) -> None:
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    targets = kinked(images).argmax(dim=1)
    converged = ro.converge(
        ro.Objective(kinked, targets, "logit"), ro.StraightPath.from_black(images), 64
    ).maps
    audit = ro.audit_maps(ro.Objective(kinked, targets, "logit"), images, converged, intervals=64)
    assert float(audit.error) == 0
    assert {int(count) for count in audit.samples.values()} == {0}
    assert audit.most == 16
    with pytest.raises(ValueError, match=r"maps: expected the images' shape \(1, 3, 12, 12\), with or"):
        ro.audit_maps(ro.Objective(kinked, targets), images, converged[:, :2])
    with pytest.raises(ValueError, match=r"path: the converged map of guided_ig depends on the steps"):
        ro.audit_maps(ro.Objective(kinked, targets), images, converged, path="guided_ig")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray], list[float]]:
    """A folder of pictures, maps of them from 5 samples, by id, and their true errors."""
    pictures = make_pictures(tmp_path_factory.mktemp("audited") / "pictures", 3)
    model = load_model(MODEL)
    refs = list_images(str(pictures))
    images = torch.stack([read_tensor(ref, model) for ref in refs])
    targets = model(images).argmax(dim=1)
    maps = ro.attribute(model, images, targets, estimator="trapezoid", samples=5).maps
    audit = ro.audit_maps(ro.Objective(model, targets), images, maps, intervals=64)
    return pictures, dict(zip([r.image_id for r in refs], maps.numpy(), strict=True)), audit.error.tolist()


def write_folder(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    """A file a map, named after its image without the ending, as a batch of one."""
    for name, values in maps.items():
        np.save(folder / f"{Path(name).stem}.npy", values[None])
    return folder


def write_stack(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    np.save(folder / "all.npy", np.stack([*maps.values()]))
    (folder / "all.txt").write_text("\n".join(maps))
    return folder / "all.npy"


def write_parquet(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    """Nested lists, as frames of pandas have them, in row groups of two."""
    table = pa.table({"image_id": [*maps], "map": [values.tolist() for values in maps.values()]})
    pq.write_table(table, folder / "maps.parquet", row_group_size=2)
    return folder


def write_groups(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    """HDF5 with a data set an image, by its id."""
    with h5py.File(folder / "maps.h5", "w") as file:
        for name, values in maps.items():
            file[f"attribution/{name}"] = values
    return folder / "maps.h5"


def write_numbered(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    """HDF5 as ViRelAy's own scripts write it: of all images in order, without ids."""
    with h5py.File(folder / "maps.hdf5", "w") as file:
        file["attribution"] = np.stack([*maps.values()])
    return folder


def audited(maps: Path, pictures: Path, output: Path, *more: str) -> Result:
    arguments = ["audit", str(maps), "--images", str(pictures), "--model", MODEL, "--intervals", "64"]
    return CliRunner().invoke(app, [*arguments, "--output", str(output), *more])


@pytest.mark.parametrize("write", [write_folder, write_stack, write_parquet, write_groups, write_numbered])
def test_maps_come_in_files_of_many_kinds(write, world, tmp_path: Path) -> None:
    pictures, maps, errors = world
    folder = tmp_path / "maps"
    folder.mkdir()
    ended = audited(write(folder, maps), pictures, tmp_path / "audit.parquet")
    assert ended.exit_code == 0, ended.output
    rows = pq.read_table(tmp_path / "audit.parquet")
    assert rows["image_id"].to_pylist() == [*maps]
    assert rows["reference_error"].to_pylist() == pytest.approx(errors, rel=1e-4)
    assert set(rows["summed"].to_pylist()) == {False}
    assert all(0 < count <= 5 for count in rows["samples_trapezoid"].to_pylist())
    assert rows.schema.field("reference_error").metadata[b"direction"] == b"lower is better"
    assert max(map(len, ended.output.splitlines()[:-2])) <= 80


def test_what_does_not_fit_is_one_line_that_names_the_image(world, tmp_path: Path) -> None:
    pictures, maps, _ = world
    first = next(iter(maps))
    broken = {
        "for 'p00.png' in maps0, got float32 of shape (1, 3, 12, 11)": {first: maps[first][:, :, 1:]},
        "maps: expected finite values for 'p00.png' in maps1, found others": {first: maps[first] * np.nan},
        "maps: maps2 has a map of 'p77', but no such image is in ": {"p77.png": maps[first]},
    }
    for number, (line, change) in enumerate(broken.items()):
        folder = tmp_path / f"maps{number}"
        folder.mkdir()
        ended = audited(write_folder(folder, maps | change), pictures, tmp_path / "audit.csv")
        assert ended.exit_code == 2
        assert len(ended.stderr.splitlines()) == 1
        assert line in ended.stderr
    assert not (tmp_path / "audit.csv").exists()
    files = tmp_path / "files"
    files.mkdir()
    stack = write_stack(files, maps)
    for text, line in (("p00.png\np01.png", "got 2 ids and 3 maps"), ("a\na\nb", "got two of 'a'")):
        (files / "all.txt").write_text(text)
        with pytest.raises(ValueError, match=line):
            foreign_maps(stack)
    write_parquet(files, maps)
    with pytest.raises(
        ValueError, match=r"maps: expected files of one format in .*, found .npy and .parquet"
    ):
        foreign_maps(files)
    with pytest.raises(
        ValueError, match=r"maps: expected .npy, .parquet, .h5, .hdf5, .zarr at .*, found none"
    ):
        foreign_maps(pictures)
