"""What cannot be explained is refused in one line before anything is spent on it; what can be, is not."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.estimators.exact_line import exact_integrated_gradients
from riemannopt_dist.methods import attribute, guided_ig, integrated_gradients
from riemannopt_dist.metrics.information.curves import information_curve
from riemannopt_dist.metrics.insertion import insertion
from riemannopt_dist.metrics.sensitivity_n import sensitivity_n
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.models.folding import channels_last, fast_classifier, folded
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.models.logits import check_no_probabilities
from riemannopt_dist.models.soundness import check_classifier, noise
from riemannopt_dist.models.state import model_state
from riemannopt_dist.objective import Objective
from riemannopt_dist.quadrature.estimation import estimate_profile
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.run.classifier import check_for_run
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.inputs import check_labels
from riemannopt_dist.testing.small_world import SIDE
from tests import unsound
from tests.unsound import ACCEPTED, REFUSED, Net, Viewing, in_place, weight_norm

CONFIG = make_config({"images": "x", "output": "y", "model": {"name": "z"}, "metrics": []}, "test")

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")


def classifier(network: nn.Module, name: str = "test") -> Classifier:
    size = getattr(network, "input_size", 224)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Classifier(network, name=name, mean=mean, std=std, input_size=size, resize_size=size, classes=None)


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_explained_is_one_line_with_its_mend(build: type[nn.Module], message: str) -> None:
    model = classifier(build())
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"^model: .*{message}") as refusal:
        check_classifier(model)
    assert "\n" not in str(refusal.value)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("build", ACCEPTED)
def test_what_can_be_explained_passes_and_workers_compute_the_same(build: type[nn.Module]) -> None:
    name = f"tests.unsound:{build.__name__}"
    model = load_model(name)
    assert check_for_run(model, CONFIG) == model(noise(model)).shape[1]
    rebuilt = fast_classifier(name, model_state(model))
    torch.testing.assert_close(rebuilt(noise(model)), model(noise(model)), rtol=1e-4, atol=1e-5)


def test_weights_in_another_memory_format_fit_no_network_that_takes_one_for_granted() -> None:
    model = classifier(Viewing())
    expected = model(noise(model))
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        copy.deepcopy(model).to(memory_format=torch.channels_last)(noise(model))
    assert channels_last(model) is model
    assert torch.equal(model(noise(model)), expected)
    plain = channels_last(classifier(Net()))
    assert plain.network.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_weight_that_is_made_anew_in_every_pass_carries_no_normalisation() -> None:
    network = nn.Sequential(weight_norm().conv, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(800, 5))
    network.input_size = SIDE
    model = classifier(network)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    expected = model(noise(model))
    assert folded(model) is model
    assert torch.equal(model(noise(model)), expected)


def test_a_network_that_writes_into_its_images_leaves_them_alone() -> None:
    """The map is that of the same network without: behind a classifier they are a copy."""
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    before, targets, schedule = images.clone(), torch.tensor([0, 3]), linear_schedule(4)
    found = integrated_gradients(classifier(in_place()), images, targets, schedule)
    expected = integrated_gradients(classifier(Net(lambda x: (x - 0.5) * 2)), images, targets, schedule)
    torch.testing.assert_close(found.maps, expected.maps)
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", ["one logit", "probabilities"])
def test_what_is_no_logit_may_be_explained_as_it_is(kind: str) -> None:
    model = classifier(REFUSED[kind][0]())
    assert check_classifier(model, "logit") == model(noise(model)).shape[1]


@pytest.mark.parametrize(
    "name", ["timm:test_resnet", "timm:test_vit", "timm:test_efficientnet", "squeezenet1_1"]
)
def test_known_architectures_are_sound(name: str) -> None:
    assert check_classifier(load_model(name, "random")) == 1000


def test_a_model_that_workers_would_build_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model: built once more .* keep all that they depend on as param"):
        check_for_run(load_model("tests.unsound:unregistered"), CONFIG)


def test_a_factory_that_works_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("tests.unsound:plain")
    monkeypatch.setattr(unsound, "plain", lambda: 1 / 0)
    refusal = r"^model: it cannot be built once more, as every worker does: .*ZeroDivisionError: "
    with pytest.raises(ValueError, match=refusal):
        check_for_run(model, CONFIG)


def test_labels_that_the_model_lacks_are_refused() -> None:
    refs = [ImageRef(f"{label}.png", "/", label) for label in (None, 0, 4)]
    check_labels(refs, 5)
    with pytest.raises(ValueError, match=r"^labels: '4.png' has class 4, the model's are 0 to 3: expected a"):
        check_labels(refs, 4)


# --- The library's own functions ---

OUTPUTS = {
    "dict": r"return out\['logits'\]",
    "tuple": r"return out\[0\]",
    "vector": "return torch.stack",
    "square": r"return out.flatten\(1\)",
    "classes": "torch.int64",
    "one logit": "softmax is always 1",
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_functions_refuse_what_is_no_logits(kind: str) -> None:
    network = REFUSED[kind][0]().eval().requires_grad_(False)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, dtype=torch.int64)
    if kind not in ("one logit", "classes"):  # the logit is explained, of layers alone
        layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 5 if kind != "vector" else 1))
        layers.register_forward_hook(lambda module, inputs, logits: network.after(logits))
        with pytest.raises(ValueError, match=rf"^model: .*{OUTPUTS[kind]}"):
            exact_integrated_gradients(layers.eval(), images, targets)
    for call in (
        lambda: integrated_gradients(network, images, targets, linear_schedule(2)),
        lambda: guided_ig(network, images, targets, linear_schedule(2)),
        lambda: insertion(Objective(network, targets), images, images),
        lambda: information_curve(Objective(network, targets), images, images),
        lambda: estimate_profile(Objective(network, targets), images, samples=3),
    ):
        with pytest.raises(ValueError, match=rf"^model: .*{OUTPUTS[kind]}"):
            call()


class Dropping(Net):
    """Half of its features are dropped, as its own mode says."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).relu().mean((2, 3))
        return self.head(functional.dropout(features, 0.5, training=self.training))


CALLS: dict[str, Callable[[Objective, Tensor], object]] = {
    "ig": lambda o, x: integrated_gradients(o.model, x, o.targets, linear_schedule(2)),
    "guided_ig": lambda o, x: guided_ig(o.model, x, o.targets, linear_schedule(2)),
    "rescale": lambda o, x: attribute(o.model, x, o.targets, estimator="rescale", samples=2),
    "profile": lambda o, x: estimate_profile(o, x, samples=3),
    "insertion": lambda o, x: insertion(o, x, x),
    "information": lambda o, x: information_curve(o, x, x),
    "sensitivity_n": lambda o, x: sensitivity_n(o, x, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_refuse_probabilities_and_dropout_in_training_mode(name: str) -> None:
    """Each time: f would be a softmax of a softmax, and two maps of one image would have little in common."""
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3])
    ending, dropping = Net(after=lambda y: y.softmax(1)).eval(), Dropping().train()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^model: expected logits, got probabilities .* leave out its"):
            CALLS[name](Objective(ending, targets), images)
        with pytest.raises(ValueError, match=r"^model: .* chance.* evaluation mode \(model.eval\(\)\)$"):
            CALLS[name](Objective(dropping, targets), images)
    CALLS[name](Objective(dropping.eval(), targets), images)
    with pytest.raises(ValueError, match=r"^model: .* chance"):
        CALLS[name](Objective(dropping.train(), targets), images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 10, 1000, 21843])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_probabilities_are_told_in_every_type(dtype: torch.dtype, classes: int, scale: float) -> None:
    """Computed in it or cast to it or from it; logits are not taken for them, of any sign."""
    chance = torch.Generator().manual_seed(classes)
    logits = (scale * torch.randn(4, classes, generator=chance, dtype=torch.float64)).to(dtype)
    for found in (logits.softmax(1), logits.double().softmax(1).to(dtype), logits.softmax(1).float()):
        with pytest.raises(ValueError, match="got probabilities"):
            check_no_probabilities(found)
    for found in (logits, logits.abs(), logits.log_softmax(1), 1.05 * logits.double().softmax(1)):
        check_no_probabilities(found)


def test_sigmoids_are_told_in_a_warning_and_once(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for after, told in ((torch.sigmoid, 1), (torch.zeros_like, 0), (torch.relu, 0), (lambda y: y, 0)):
        model, targets = Net(after=lambda y, after=after: after(9 * y)).eval(), torch.tensor([0, 3])
        caplog.clear()
        for output in ("logit", "probability", "probability"):
            Objective(model, targets, output).values(images)
        assert [record.message.count("sigmoid, leave that out") for record in caplog.records] == [1] * told


def test_a_model_is_looked_at_once_and_refused_for_no_more() -> None:
    """Training mode without chance; probabilities that are explained as they are; NaN, which is neither."""
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    targets, passes = torch.tensor([0, 3, 1]), []
    plain = Net().train()
    plain.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    for _ in range(2):
        Objective(plain, targets, internal_batch_size=2).values(images)
    assert passes == [2, 2, 1, 2, 1]  # the first two are passed twice
    ending = Net(after=lambda y: y.softmax(1)).eval()
    values = Objective(ending, targets, "logit").values(images)
    torch.testing.assert_close(values, Objective(plain.eval(), targets).values(images))
    nowhere = Net(after=lambda y: y * torch.nan)
    assert Objective(nowhere, targets).values(images).isnan().all()
