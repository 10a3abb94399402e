"""Networks of any kind through a whole run, each told in ten lines: transformers, a grey one, a folder's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import riemannopt_dist as ro
from riemannopt_dist.commands import app
from riemannopt_dist.data.decoding import decode_image, prepare_image
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.config.loading import load_config
from riemannopt_dist.run.plan import make_plan
from tests.hugging_face import NAMES, PREPROCESSING, saved, vit

pytestmark = pytest.mark.usefixtures("ray_here")

COUNT = 4
GREY_SHAPE = (512, 384)


class Grey(nn.Module):
    """Three classes in grey pictures of 512 × 384; its logits come with their sum."""

    input_size = resize_size = GREY_SHAPE
    channels = 1

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 4, 16, stride=16), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 32 * 24, 3)
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layers(images)
        return logits.sum(), logits


def grey() -> nn.Module:
    return Grey()


def pictures(folder: Path, size: tuple[int, int], names: tuple[str, ...] = ("",)) -> None:
    """COUNT pictures of (height, width) in folders of their classes."""
    rng = np.random.default_rng(0)
    for n in range(COUNT):
        place = folder / names[n % len(names)] / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(place)


REST = """\
output: run
grid:
  - {paths: [ig, blur_ig, guided_ig], estimators: [left], placements: [linear, exact], samples: [2]}
fit: {images: 2, samples: 3}
maps: {}
select: all
"""


def evaluated(place: Path, text: str) -> ro.RunReader:
    """The run of a configuration, by the command."""
    assert len(text.splitlines()) <= 10
    (place / "run.yaml").write_text(text)
    ended = CliRunner().invoke(app, ["evaluate", "--config", "run.yaml", "--workers", "1"])
    assert ended.exit_code == 0, ended.output
    return ro.open_run("run")


def check(run: ro.RunReader, model: Classifier, read: Callable[[str], bytes]) -> None:
    """Six cells of two images, whose values and maps are the model's."""
    rows = run.results().to_pylist()
    assert len(rows) == 12
    assert {row["path"] for row in rows} == {"ig", "blur_ig", "guided_ig"}
    for image_id, values in run.maps(path="ig", placement="linear", samples=2):
        row = next(r for r in rows if r["image_id"] == image_id and r["path"] == "ig")
        image = prepare_image(decode_image(read(image_id)), *model.framing)[None]
        targets = torch.tensor([row["target"]])
        result = ro.attribute(model, image, targets, estimator="left", samples=2)
        assert row["f_input"] == pytest.approx(float(result.f_input), rel=1e-4)
        assert values.shape == model.input_size
        expected = result.maps.sum((0, 1)).numpy()
        np.testing.assert_allclose(values, expected, atol=2e-3 * float(np.abs(expected).max()))


@pytest.fixture(scope="module")
def grey_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the grey network on a list of pictures, the second most probable class of each explained."""
    place = tmp_path_factory.mktemp("grey")
    pictures(place / "images", GREY_SHAPE)
    rows = [f"images/{n}.png,{n % 3}" for n in range(COUNT)]
    (place / "list.csv").write_text("\n".join(["uri,label", *rows]) + "\n")
    model = "{name: 'tests.run.test_any_shape:grey', output_key: 1}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        evaluated(place, f"images: list.csv\nmodel: {model}\ntargets: runner_up\n{REST}")
    return place


@pytest.fixture
def at_grey(grey_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(grey_run)
    return grey_run


def test_a_grey_network_of_512_by_384(at_grey: Path) -> None:
    run, model = ro.open_run("run"), load_model("tests.run.test_any_shape:grey", output_key=1)
    check(run, model, lambda image_id: (at_grey / image_id).read_bytes())
    images = {row["image_id"]: row for row in run.images().to_pylist()}
    assert {name: row["label"] for name, row in images.items()} == {
        f"images/{n}.png": n % 3 for n in range(COUNT)
    }
    for name, row in images.items():
        image = prepare_image(decode_image((at_grey / name).read_bytes()), *model.framing)[None]
        assert model(image)[0].topk(2).indices.tolist() == [row["prediction"], row["runner_up"]]
    assert all(row["target"] == images[row["image_id"]]["runner_up"] for row in run.results().to_pylist())


def test_the_plan_of_it_tells_the_size_of_its_maps(at_grey: Path) -> None:
    plan = make_plan(load_config("run.yaml"))
    assert plan.map_bytes == 12 * 512 * 384 * 2


def test_its_report_shows_photos_and_maps_in_their_shape(at_grey: Path) -> None:
    ended = CliRunner().invoke(app, ["report", "run", "--format", "html"])
    assert ended.exit_code == 0, ended.output
    page = (at_grey / "run/report/index.html").read_text()
    assert "data:image/jpeg" in page
    assert "not shown" not in page


def test_its_maps_are_scored_exported_and_audited(at_grey: Path) -> None:
    for line in (
        "score run --metrics deletion,insertion_smoothed --path ig",
        "export run exported --to npy --path ig",
        "audit exported --images list.csv --config run.yaml --intervals 8 --output audit.csv",
        "explain images/0.png --config run.yaml --samples 2 --converged 4 --output photo.png",
        "explain images/0.png -c run.yaml --target 2 --samples 2 --output photo.html",
    ):
        ended = CliRunner().invoke(app, line.split())
        assert ended.exit_code == 0, f"{line}: {ended.output}"
    assert len((at_grey / "audit.csv").read_text().splitlines()) == 5
    assert (at_grey / "photo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_a_folder_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders bear the names of its classes, and one class is explained for all images."""
    saved(tmp_path / "vit", vit(), PREPROCESSING)
    pictures(tmp_path / "images", (40, 36), NAMES)
    monkeypatch.chdir(tmp_path)
    run = evaluated(tmp_path, f"images: images\nmodel: {{name: 'hf:vit'}}\ntargets: boat\n{REST}")
    check(run, load_model("hf:vit"), lambda image_id: (tmp_path / "images" / image_id).read_bytes())
    labels = {row["image_id"]: row["label_name"] for row in run.images().to_pylist()}
    assert all(name.split("/")[0] == label for name, label in labels.items())
    assert {row["target_name"] for row in run.results().to_pylist()} == {"boat"}
    assert run.about["config"]["targets"] == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "model",
    [
        "{name: 'timm:test_vit', weights: random, num_classes: 5, input_size: [32, 48]}",
        "{name: swin_t, weights: random, num_classes: 5, input_size: 64, resize_size: 64}",
    ],
)
def test_transformers(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "images", (50, 50))
    monkeypatch.chdir(tmp_path)
    run = evaluated(tmp_path, f"images: images\nmodel: {model}\n{REST}")
    config = load_config("run.yaml").model
    network = load_model(config.name, config.weights, **config.settings)
    check(run, network, lambda image_id: (tmp_path / "images" / image_id).read_bytes())
