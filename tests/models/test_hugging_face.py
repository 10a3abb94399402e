"""Image classifiers of Hugging Face's transformers from a local folder give what transformers gives."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from riemannopt_dist.data.decoding import prepare_image
from riemannopt_dist.models.loading import assemble_model, load_model
from riemannopt_dist.models.soundness import check_classifier
from riemannopt_dist.models.state import model_state
from riemannopt_dist.models.weights import RANDOM
from riemannopt_dist.run.classes import class_names
from riemannopt_dist.run.origin import code_digest
from tests.hugging_face import NAMES, PREPROCESSING, SIDE, saved, vit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("vit"), vit(), PREPROCESSING)


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@torch.no_grad()
def test_a_picture_goes_through_as_in_transformers(folder: Path) -> None:
    model, image = load_model(f"hf:{folder}"), picture(48, 48)
    pixels = ViTImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
    expected = vit()(pixels).logits
    torch.testing.assert_close(model(prepare_image(image, *model.framing)[None]), expected, atol=2e-3, rtol=0)
    assert check_classifier(model) == model.classes == 3
    assert class_names(model, 3) == list(NAMES)


@torch.no_grad()
def test_a_worker_builds_it_once_more_from_its_arrays(folder: Path) -> None:
    model, images = load_model(f"hf:{folder}"), torch.rand(2, 3, SIDE, SIDE)
    rebuilt = assemble_model(f"hf:{folder}", model_state(model))
    assert torch.equal(rebuilt(images), model(images))
    assert rebuilt.output_key == "logits"


@torch.no_grad()
def test_a_checkpoint_of_other_classes_and_grey_images(tmp_path: Path) -> None:
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    config.id2label = dict(enumerate("abcde"))
    network = ResNetForImageClassification(config).eval()
    saved(tmp_path, network, {"size": {"shortest_edge": 48}, "crop_pct": 0.75, "do_normalize": False})
    torch.save({"state_dict": network.state_dict()}, tmp_path / "last.ckpt")
    model = load_model(f"hf:{tmp_path}", str(tmp_path / "last.ckpt"), input_size=(32, 48))
    images = torch.rand(2, 1, 32, 48)
    torch.testing.assert_close(model(images), network(images).logits)
    assert load_model(f"hf:{tmp_path}").framing == ((48, 48), (64, 64), 1, "bilinear")
    assert load_model(f"hf:{tmp_path}", RANDOM, num_classes=2)(images).shape == (2, 2)
    assert load_model(f"hf:{tmp_path}", RANDOM, num_classes=5).network.class_names == [
        "a",
        "b",
        "c",
        "d",
        "e",
    ]
    with pytest.raises(ValueError, match=r"^model: channels: .* takes 1, told by its config.json$"):
        load_model(f"hf:{tmp_path}", channels=3, mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({}, 0.4, 0.25),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"do_rescale": False, "image_mean": [102.0] * 3, "image_std": [63.75] * 3}, 0.4, 0.25),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": [0.0] * 3}, 0.5, 0.125),
    ],
)
def test_pixels_are_scaled_as_the_processor_does(
    folder: Path, tmp_path: Path, changes: dict[str, Any], mean: float, std: float
) -> None:
    """What a pixel of 0 … 255 comes to: (p · factor − offset − mean) / std."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | changes))
    model = load_model(f"hf:{tmp_path}")
    assert model.mean[0, 1, 0, 0] == pytest.approx(mean)
    assert model.std[0, 1, 0, 0] == pytest.approx(std)


def test_pictures_are_scaled_as_the_processor_does(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    for resample in (2, 3):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | {"resample": resample}))
        model, image = load_model(f"hf:{tmp_path}"), picture(90, 90)
        pixels = ViTImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")["pixel_values"]
        prepared = prepare_image(image, *model.framing)
        torch.testing.assert_close((prepared - model.mean[0]) / model.std[0], pixels[0], atol=5e-2, rtol=0)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | {"resample": 4}))
    with pytest.raises(ValueError, match=r"resample: expected 0 \(nearest\), .*3 \(bicubic\), got 4$"):
        load_model(f"hf:{tmp_path}")


def test_what_is_wrong_with_a_folder_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as refusal:
            load_model(f"hf:{tmp_path}")
        assert "\n" not in str(refusal.value)

    refused(r"^model: 'hf:.*': no config.json in .*: expected a local folder as save_pretrained writes it$")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    refused(r"^model: no preprocessor_config.json in .*processor.save_pretrained")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    refused(r"^weights: hf:.*: ")
    network = vit()
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier")}
    network.save_pretrained(tmp_path, state_dict=state)
    refused(r"^weights: .* lacks 'classifier.bias' and 1 more of hf:")
    BertConfig().save_pretrained(tmp_path)
    refused(r"^model: 'hf:.*': expected an image classifier, its config.json is that of bert$")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(r"^model hf:.* needs transformers: pip install transformers$")


def test_the_code_of_a_folder_is_its_configuration(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert code_digest(f"hf:{tmp_path}") == code_digest(f"hf:{folder}") != ""
    (tmp_path / "config.json").write_text("{}")
    assert code_digest(f"hf:{tmp_path}") != code_digest(f"hf:{folder}")
