"""Networks for images of any shape, grey ones, and such as give their logits among others."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from skimage.data import chelsea
from torch import Tensor, nn
from torchvision.transforms import functional

import riemannopt_dist as ro
from riemannopt_dist.data.decoding import prepare_image
from riemannopt_dist.metrics.controls import CONTROLS
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.models.loading import assemble_model, load_model
from riemannopt_dist.models.logits import part_of
from riemannopt_dist.models.recipe import adjusted
from riemannopt_dist.models.soundness import check_classifier
from riemannopt_dist.models.state import model_state
from riemannopt_dist.models.table import recipe_of
from riemannopt_dist.models.weights import RANDOM
from riemannopt_dist.run.classifier import check_for_run
from riemannopt_dist.run.config.loading import make_config
from tests.unsound import Net

GREY = {"channels": 1, "mean": [0.5], "std": [0.25]}


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


# --- Images ---


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (200, 31), (60, 45)])
@pytest.mark.parametrize(("crop", "box"), [((24, 40), (30, 44)), ((45, 60), (45, 60))])
def test_the_middle_of_what_covers_the_box_keeps_its_shape(
    size: tuple[int, int], crop: tuple[int, int], box: tuple[int, int]
) -> None:
    image = picture(*size)
    scale = max(box[0] / size[1], box[1] / size[0])
    resized = functional.resize(image, [int(size[1] * scale + 1e-9), int(size[0] * scale + 1e-9)])
    expected = functional.to_tensor(functional.center_crop(resized, list(crop)))
    assert torch.equal(prepare_image(image, crop, box), expected)


def test_a_picture_of_the_network_s_size_is_taken_as_it_is() -> None:
    image = picture(384, 512)
    assert torch.equal(prepare_image(image, (512, 384), (512, 384)), functional.to_tensor(image))
    grey = image.convert("L")
    assert torch.equal(
        prepare_image(grey.convert("RGB"), (512, 384), (512, 384), 1), functional.to_tensor(grey)
    )


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "efficientnet_b0", "regnet_y_16gf"])
def test_a_photo_is_what_torchvision_s_weights_get(name: str) -> None:
    photo = Image.fromarray(chelsea())
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    model = load_model(name, RANDOM)
    (batch,) = ro.batches([photo], model)
    normalised = (batch.images - model.mean) / model.std
    torch.testing.assert_close(normalised[0], preset(photo), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_tiny_patch16_224"])
def test_a_photo_is_what_timm_s_weights_get(name: str) -> None:
    photo = Image.fromarray(chelsea())
    settings = timm.data.resolve_data_config({}, timm.get_pretrained_cfg(name).to_dict())
    preset = timm.data.create_transform(**settings)
    model = load_model(f"timm:{name}", RANDOM)
    (batch,) = ro.batches([photo], model)
    normalised = (batch.images - model.mean) / model.std
    torch.testing.assert_close(normalised[0], preset(photo), atol=1e-5, rtol=0)


def test_an_interpolation_travels_with_the_weights() -> None:
    """Bilinear ones are told by nothing, as in runs made before."""
    own, told = (load_model("swin_t", RANDOM, interpolation=way) for way in (None, "bilinear"))
    assert (own.interpolation, told.interpolation) == ("bicubic", "bilinear")
    for model in (own, told):
        assert assemble_model("swin_t", model_state(model)).framing == model.framing
    assert model_state(own).keys() - model_state(told).keys() == {"interpolated"}
    with pytest.raises(ValueError, match=r"^model: 'swin_t': interpolation: expected one of nearest, bil"):
        load_model("swin_t", RANDOM, interpolation="cubic")  # type: ignore[arg-type]


def test_images_that_were_squeezed_are_told() -> None:
    name = "timm:efficientnet_b5"
    with pytest.raises(ValueError, match=r"its images were squeezed or padded .*: give resize_size, which"):
        load_model(name)
    recipe = adjusted(recipe_of(name, None), name, {"resize_size": 480})
    assert (recipe.input_size, recipe.resize_size) == ((448, 448), (480, 480))


# --- Networks ---


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet18", {"input_size": (48, 32), **GREY}),
        ("googlenet", {"input_size": (64, 48), **GREY}),
        ("swin_t", {"input_size": (32, 64)}),
        ("timm:test_vit", {"input_size": (32, 48)}),
        ("timm:test_vit", {"input_size": (32, 48), **GREY}),
        ("timm:test_resnet", {"input_size": (32, 48), **GREY}),
    ],
)
def test_networks_take_other_shapes_and_workers_build_the_same(name: str, settings: dict[str, Any]) -> None:
    model = load_model(name, RANDOM, num_classes=3, **settings)
    assert model.input_shape == (settings.get("channels", 3), *settings["input_size"])
    assert model.resize_size == settings["input_size"]
    assert check_classifier(model) == 3
    rebuilt = assemble_model(name, model_state(model))
    assert rebuilt.framing == model.framing
    images = torch.rand(1, *model.input_shape)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), model(images))


def test_a_square_is_told_by_one_number_or_two() -> None:
    one, two = (load_model("timm:test_resnet", RANDOM, input_size=size) for size in (64, [64, 64]))
    assert one.framing == two.framing == ((64, 64), (67, 67), 3, "bilinear")  # 160 of 168


@pytest.mark.parametrize(
    ("name", "size", "resize_size"),
    [
        ("resnet18", 224, 256),  # as published
        ("resnet18", 64, 73),  # 256 / 224
        ("resnet18", 448, 512),
        ("timm:resnet18", 32, 34),  # crop_pct 0.95, 224 of 235
        ("timm:vit_tiny_patch16_224", 96, 106),  # crop_pct 0.9, 224 of 248
    ],
)
def test_an_input_size_alone_keeps_the_share_that_is_cut(name: str, size: int, resize_size: int) -> None:
    model = load_model(name, RANDOM, num_classes=3, input_size=size)
    assert model.framing[:3] == ((size, size), (resize_size, resize_size), 3)


@pytest.mark.parametrize(("factory", "settings"), [("digits", {}), ("unsized", {"input_size": 28})])
def test_a_factory_that_tells_its_input_alone_sees_whole_pictures(
    factory: str, settings: dict[str, Any]
) -> None:
    """A digit of 28 × 28 pixels reaches the network as it is."""
    model = load_model(f"tests.models.test_shapes:{factory}", channels=1, mean=[0.5], std=[0.5], **settings)
    assert model.framing == ((28, 28), (28, 28), 1, "bilinear")
    digit = picture(28, 28).convert("L")
    (batch,) = ro.batches([digit], model)
    assert torch.equal(batch.images[0], functional.to_tensor(digit))
    assert assemble_model(model.name, model_state(model)).framing == model.framing


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"input_size": (4, 4, 4)}, r"its input_size: expected pixels, a side or \[height, width\]"),
        ({"input_size": (40, 30), "resize_size": (40, 20)}, r"its resize_size: expected at least \[40, 30\]"),
        ({"channels": 2}, r"^model: channels: expected 1 \(grey\) or 3 \(RGB\), got 2$"),
        ({"channels": 1}, r"mean and std of one channel.*: for grey images give mean: \[m\] and std: \[s\]"),
        ({"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}, r"of pixels in \[0, 1\].* by 255$"),
        ({"weights": None, **GREY}, r"^channels: vit_b_16's published weights take RGB images: give others"),
        ({"input_size": (64, 32)}, r"^model: input_size: vit_b_16 takes square images, got 64 × 32$"),
    ],
)
def test_settings_that_do_not_fit_are_told_with_their_mend(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_model("vit_b_16", **{"weights": RANDOM, **settings})


def test_a_setting_that_is_none_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unknown setting 'input'"):
        load_model("resnet18", RANDOM, input=3)  # type: ignore[call-arg]


def test_sizes_of_a_configuration() -> None:
    model = {"name": "m", "input_size": [512, 384], "resize_size": 600, "channels": 1, "output_key": 0}
    settings = make_config({"images": "x", "output": "y", "model": model}, "test").model.settings
    assert (settings["input_size"], settings["resize_size"], settings["output_key"]) == ((512, 384), 600, 0)
    for size in ([512], [512, 0], "512", True, 1.5):
        fields = {"images": "x", "output": "y", "model": {"name": "m", "input_size": size}}
        with pytest.raises(ValueError, match=r"^test: model.input_size: expected pixels, a side or \[h"):
            make_config(fields, "test")


def test_metrics_of_a_grey_network() -> None:
    """All that need no more than a small map, and the controls."""
    model = load_model("tests.models.test_shapes:grey")
    images, targets = torch.rand(2, 1, 24, 20), torch.tensor([0, 2])
    result = ro.attribute(model, images, targets, samples=4)
    maps = torch.stack([result.maps, *(control(images) for control in CONTROLS.values())])
    f_input = result.f_input
    batch = MapBatch(
        ro.Objective(model, targets), images, maps, f_input=f_input, f_baseline=f_input.expand(3, 2), seed=0
    )
    names = [name for name in METRICS if name not in ("reference", "information_official_ms_ssim")]
    assert len(names) > 5
    for name in names:
        for values in METRICS[name].compute(batch).values():
            assert len(values) == (3 if isinstance(values, Tensor) else 2)


def test_a_baseline_of_three_colours_is_none_of_a_grey_network() -> None:
    grid = [{"paths": [{"path": "ig", "baseline": [0.4, 0.4, 0.4]}]}]
    config = make_config({"images": "x", "output": "y", "model": {"name": "m"}, "grid": grid}, "test")
    with pytest.raises(ValueError, match=r"^baseline: expected one value or 1, got \(0.4, 0.4, 0.4\)$"):
        check_for_run(load_model("tests.models.test_shapes:grey"), config)


def test_images_that_a_classifier_would_scale_once_more_are_refused() -> None:
    model, targets = load_model("tests.models.test_shapes:grey"), torch.tensor([0])
    for images, mend in (
        (torch.rand(1, 1, 24, 20) * 255, "divide by 255"),
        (torch.rand(1, 1, 24, 20) * 4 - 2, "the model normalises them itself"),
    ):
        with pytest.raises(ValueError, match=rf"^images: expected values in \[0, 1\], got .*: {mend}$"):
            ro.attribute(model, images, targets)
        with pytest.raises(ValueError, match=mend):
            ro.insertion(ro.Objective(model, targets), images, images)


# --- Outputs ---


def grey() -> nn.Module:
    """Five classes in grey pictures of 24 × 20."""
    net = Net()
    net.conv = nn.Conv2d(1, 8, 3)
    net.input_size = net.resize_size = (24, 20)
    net.channels = 1
    return net


def unsized() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def digits() -> nn.Module:
    net = unsized()
    net.input_size = 28  # type: ignore[assignment]
    return net


def tuple_of_two() -> nn.Module:
    return Net(after=lambda y: (y.sum(), y))


def mapping() -> nn.Module:
    return Net(after=lambda y: OrderedDict(loss=y.sum(), scores=y))


@pytest.mark.parametrize(("factory", "key"), [("tuple_of_two", 1), ("mapping", "scores")])
def test_logits_among_others_are_taken_by_their_key(factory: str, key: str | int) -> None:
    name = f"tests.models.test_shapes:{factory}"
    images = torch.rand(2, 3, 12, 12)
    model, plain = load_model(name, output_key=key), load_model("tests.unsound:plain")
    assert torch.equal(model(images), plain(images))
    assert check_classifier(model) == 5
    rebuilt = assemble_model(name, model_state(model))
    assert rebuilt.output_key == key
    assert torch.equal(rebuilt(images), plain(images))
    with pytest.raises(ValueError, match=f"or give output_key: {key}$"):
        check_classifier(load_model(name))
    with pytest.raises(ValueError, match=f"no 'other' in its output, .*, or give output_key: {key}"):
        check_classifier(load_model(name, output_key="other"))


def test_a_part_may_be_an_attribute() -> None:
    pair = Net(after=lambda y: y)
    assert part_of(pair, "head") is pair.head
