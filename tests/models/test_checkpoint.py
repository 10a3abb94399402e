"""Checkpoints as training frameworks write them, read into the architecture that was trained."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

from riemannopt_dist.models.loading import assemble_model, load_model
from riemannopt_dist.models.state import model_state
from riemannopt_dist.models.weights import RANDOM

State = dict[str, Tensor]

CLASSES = 7
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def trained() -> State:
    torch.manual_seed(5)
    return dict(resnet18(num_classes=CLASSES).state_dict())


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _wrong(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


WRITTEN: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": lambda state: state,
    "DistributedDataParallel": lambda state: _prefixed("module.", state),
    "Lightning": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": _prefixed("model.", state) | {"criterion.weight": torch.ones(CLASSES)},
        "optimizer_states": [{"lr": 0.1}],
    },
    "timm": lambda state: {"arch": "resnet18", "state_dict": _wrong(state), "state_dict_ema": state},
    "a training script": lambda state: {"model": _prefixed("module.backbone.", state), "epoch": 1},
    "a loss with a network": lambda state: {
        "state_dict": _prefixed("loss.net.", _wrong(state)) | _prefixed("model.", state)
    },
    "an averaged copy": lambda state: {
        "state_dict": _prefixed("model.", _wrong(state)) | _prefixed("model_ema.module.", state)
    },
    "an averaged copy beside plain names": lambda state: _wrong(state) | _prefixed("ema.", state),
    "a network by two names": lambda state: _prefixed("model.", state) | _prefixed("net.", state),
    "settings of an average": lambda state: {"ema": {"decay": 0.9}, "state_dict": state},
    "compiled": lambda state: _prefixed("_orig_mod.", state) | _prefixed("teacher.", _wrong(state)),
}


@pytest.mark.parametrize("framework", WRITTEN)
def test_it_is_the_network_that_was_trained(
    framework: str, trained: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(WRITTEN[framework](trained), path := tmp_path / "last.ckpt")
    with caplog.at_level(logging.INFO, logger="riemannopt_dist"):
        model = load_model("resnet18", str(path), num_classes=CLASSES, input_size=64, resize_size=72)
    network = resnet18(num_classes=CLASSES).eval()
    network.load_state_dict(trained)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(model(IMAGES), network((IMAGES - mean) / std))
    assert (model.classes, model.input_size, model.resize_size) == (CLASSES, (64, 64), (72, 72))
    assert ("; 1 others are left out" in caplog.text) == (framework == "Lightning")


def test_copies_of_which_neither_comes_first_are_named(trained: State, tmp_path: Path) -> None:
    copies = _prefixed("student.", trained) | _prefixed("teacher.", _wrong(trained))
    torch.save({"state_dict": copies}, path := tmp_path / "two.ckpt")
    copied = r"holds 2 copies of the network, with 'student\.' and 'teacher\.' before their names: save the"
    with pytest.raises(ValueError, match=copied):
        load_model("resnet18", str(path), num_classes=CLASSES)


def test_a_worker_builds_it_once_more_from_its_arrays(trained: State, tmp_path: Path) -> None:
    save_file(trained, path := tmp_path / "resnet.safetensors")
    settings = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "input_size": 64, "resize_size": 64}
    model = load_model("resnet18", str(path), num_classes=CLASSES, **settings)
    rebuilt = assemble_model("resnet18", model_state(model))
    torch.testing.assert_close(rebuilt(IMAGES), model(IMAGES), rtol=0, atol=0)
    assert (rebuilt.classes, rebuilt.input_size) == (CLASSES, (64, 64))


@pytest.mark.parametrize("name", ["timm:resnet18", "efficientnet_lite0", "vit_b_32"])
def test_every_zoo_takes_a_number_of_classes(name: str) -> None:
    model = load_model(name, RANDOM, num_classes=3)
    with torch.no_grad():
        assert model(torch.rand(1, *model.input_shape)).shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_classes": 7}, r"^num_classes: resnet18's published weights have classes of their own"),
        (
            {"weights": "FILE"},
            r"'fc.(weight|bias)' has shape \(7.*; for a network of 7 classes give num_classes: 7$",
        ),
        ({"weights": RANDOM, "std": (1.0, 0.0, 1.0)}, "expected mean and std of three channels, std above 0"),
        (
            {"weights": RANDOM, "input_size": 64, "resize_size": 32},
            "resize_size: expected at least 64, got 32",
        ),
        ({"weights": "EMPTY"}, "expected names of tensors, found 'epoch' of type int"),
    ],
)
def test_what_does_not_fit_is_told_with_its_mend(
    settings: dict[str, Any], complaint: str, trained: State, tmp_path: Path
) -> None:
    torch.save(trained, tmp_path / "FILE")
    torch.save({"epoch": 1}, tmp_path / "EMPTY")
    if settings.get("weights") in ("FILE", "EMPTY"):
        settings = settings | {"weights": str(tmp_path / settings["weights"])}
    with pytest.raises(ValueError, match=complaint):
        load_model("resnet18", **settings)


def _head_of_two(state: State) -> State:
    return {name.replace("fc.", "fc.1."): value for name, value in state.items()}


def _grey(state: State) -> State:
    return state | {"conv1.weight": state["conv1.weight"].sum(1, keepdim=True)}


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (
            _head_of_two,
            r"missing 'fc.weight' and 1 more, unexpected 'fc.1.weight'.*a function package.mod",
        ),
        (
            _grey,
            r"\(64, 1, 7, 7\), expected \(64, 3, 7, 7\); for .* give channels: 1, and their mean and",
        ),
    ],
)
def test_a_network_that_was_changed_is_told_with_its_mend(
    change: Callable[[State], State], mend: str, trained: State, tmp_path: Path
) -> None:
    torch.save(change(trained), path := tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=mend):
        load_model("resnet18", str(path), num_classes=CLASSES)


def test_a_transformer_for_larger_images_is_told_with_its_mend(tmp_path: Path) -> None:
    larger = load_model("vit_b_32", RANDOM, input_size=384)
    torch.save(larger.network.state_dict(), path := tmp_path / "larger.pt")
    with pytest.raises(ValueError, match=r"pos_embedding' has shape .*; for .* another size give input_si"):
        load_model("vit_b_32", str(path))
    assert load_model("vit_b_32", str(path), input_size=384).input_size == (384, 384)


_OF_NOW = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])")


@pytest.mark.parametrize("name", ["densenet121", "mnasnet0_5", "vit_b_32"])
def test_files_of_old_names_are_read_as_by_torchvision(name: str, tmp_path: Path) -> None:
    """A dense layer's norm.1 for norm1, a transformer's linear_1 for 0, and no versions of layers."""
    torch.manual_seed(5)
    state = torchvision.models.get_model(name, weights=None).state_dict()
    old = {_OF_NOW.sub(r"\1.\2", key): value for key, value in state.items()}
    old = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): old[key] for key in old}
    assert name == "mnasnet0_5" or old.keys() != state.keys()
    torch.save({"state_dict": _prefixed("model.", old)}, path := tmp_path / "old.pt")
    read = load_model(name, str(path)).network.state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_a_function_makes_the_whole_network() -> None:
    with pytest.raises(ValueError, match=r"num_classes: the function .* makes the whole network"):
        load_model("riemannopt_dist.testing.small_world:tiny_classifier", RANDOM, num_classes=3)
