"""`riemannopt explain`: what it writes is what the library computes, of one image and of many."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from typer.testing import CliRunner

import riemannopt_dist as ro
from riemannopt_dist.commands import app
from riemannopt_dist.data.classes import class_name
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.run.classes import target_index
from riemannopt_dist.run.stages.batches import read_tensor
from riemannopt_dist.testing.small_world import make_pictures

TINY = "riemannopt_dist.testing.small_world:tiny_classifier"


def explained(*arguments: object) -> str:
    ended = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def refusal(*arguments: object) -> str:
    ended = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    assert ended.exit_code == 2
    (line,) = ended.stderr.splitlines()
    return line


def test_a_folder_and_a_file_become_the_librarys_maps(tmp_path: Path) -> None:
    folder, output = make_pictures(tmp_path / "pictures", 3), tmp_path / "out"
    other = tmp_path / "other.png"
    Image.fromarray(255 - np.asarray(Image.open(folder / "p00.png"))).save(other)
    said = explained(
        folder, other, "-o", output, "--format", "npy", "--model", TINY,
        "--path", "ig(baseline=noise, draws=2)", "--estimator", "left", "--samples", 6, "--target", 4,
    )  # fmt: skip
    path = ro.Straight("noise", draws=2)
    model = load_model(TINY)
    for file in [*sorted(folder.iterdir()), other]:
        images = read_tensor(ImageRef(file.name, str(file), None), model)[None]
        result = ro.attribute(model, images, torch.tensor([4]), path=path, estimator="left", samples=6)
        stored = np.load(output / f"{file.name}.npy")
        np.testing.assert_allclose(stored, result.maps[0].double(), rtol=0, atol=1e-7)
        logits = model(images)[0].softmax(0)
        assert (
            f"{file.name}: class 4, probability {float(logits[4]):.3f}; {path.label}, 6 linear left" in said
        )
        assert f"  class {int(logits.argmax())} {float(logits.max()):.3f}, class" in said


def test_a_page_shows_what_the_map_lacks_to_the_converged_one(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "a<b>", 1)
    (folder / "p00.png").rename(folder / "<i>.png")
    page = tmp_path / "page.html"
    said = explained(
        folder / "<i>.png", "-o", page, "--model", TINY, "--samples", 4, "--estimator", "left",
        "--converged", 64,
    )  # fmt: skip
    model = load_model(TINY)
    images = read_tensor(ImageRef("i", str(folder / "<i>.png"), None), model)[None]
    objective = ro.Objective(model, model(images).argmax(1))
    result = ro.attribute(model, images, objective.targets, estimator="left", samples=4)
    reference = ro.converge(objective, ro.StraightPath.from_black(images), 64)
    error = float(ro.compare(result.maps, reference.maps).error)
    assert f"{error:.1%} off the converged map" in said
    text = page.read_text()
    assert f"{error:.1%} off" in text
    assert "&lt;i&gt;.png" in text
    assert "<i>" not in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)


def test_a_profile_of_another_path_places_its_samples(tmp_path: Path) -> None:
    folder, profile = make_pictures(tmp_path / "pictures", 2), tmp_path / "p.json"
    fitting = ["fit", "--images", str(folder), "--model", TINY, "--samples", "16", "--path", "blur_ig"]
    ended = CliRunner().invoke(app, [*fitting, "-o", str(profile)])
    assert ended.exit_code == 0, ended.output
    explained(
        folder / "p01.png", "-o", tmp_path / "map.npy", "--model", TINY, "--path", "blur_ig",
        "--estimator", "right", "--placement", "riemannopt", "--samples", 5, "--profile", profile,
    )  # fmt: skip
    model = load_model(TINY)
    images = [read_tensor(ImageRef(file.name, str(file), None), model) for file in sorted(folder.iterdir())]
    targets = model(torch.stack(images)).argmax(1)
    fitted = ro.estimate_profile(
        ro.Objective(model, targets), torch.stack(images), path="blur_ig", samples=16, refine="never"
    )
    schedule = ro.optimize_schedule(fitted, 5, rule="right", placement="riemannopt")
    expected = ro.blur_ig(model, images[1][None], targets[1:], schedule).maps[0]
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), expected.double(), rtol=0, atol=1e-6)


def test_a_class_is_named_in_words_and_printed_so(tmp_path: Path) -> None:
    photo = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()).save(photo)
    said = explained(photo, "-o", tmp_path / "cat.svg", "--target", "tabby", "--samples", 2)
    assert "cat.png: tabby, probability" in said
    assert "Egyptian cat" in said.splitlines()[1]
    assert "tabby" in (tmp_path / "cat.svg").read_text()
    names = [class_name(place) for place in range(1000)]
    with pytest.raises(ValueError, match=r"'tabbi' is the name of no class.* \(did you mean tabby"):
        target_index("tabbi", names, 1000)
    with pytest.raises(ValueError, match="'crane' is the name of no class, or of several"):
        target_index("crane", names, 1000)  # the bird and the machine
    assert target_index("boat", ["bird", "boat"], 2) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--target", "9"], "target: expected a class below 6, got 9"),
        (["--target", "tabby"], "target: expected the index of one of 6 classes, got 'tabby'"),
        (["--placement", "exact"], "profile: the placement exact needs one"),
        (["--tolerance", "0.1"], "tolerance: expected the placement adaptive"),
        (["--path", "ig", "--estimator", "gauss"], "estimator: expected one of"),
        (["--format", "bmp"], "format: expected one of png, jpg"),
        (["-o", "x.png"], "output: several images need a folder, got x.png"),
        (["--converged", "7"], "even number"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    folder = make_pictures(tmp_path / "pictures", 2)
    monkeypatch.chdir(tmp_path)
    assert named in refusal(folder, "--model", TINY, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_an_image_that_cannot_be_read_ends_it_by_name(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 2)
    (folder / "p01.png").write_bytes(b"")
    assert "p01.png" in refusal(folder, "--model", TINY, "-o", tmp_path / "out", "--samples", 2)
    assert (tmp_path / "out/p00.png.png").is_file()
