"""The metrics that others have published, against Quantus and pytorch-grad-cam, and where they are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import riemannopt_dist as ro
from riemannopt_dist.metrics.controls import edge_map
from riemannopt_dist.metrics.insertion import pixel_ranks, pixel_saliency
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.metrics.road import impute
from riemannopt_dist.metrics.sensitivity_n import SHARES, pixel_sets, set_correlation
from riemannopt_dist.metrics.starts import Start
from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.objective import Objective
from tests.hugging_face import vit

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(values) for name, values in arrays.items() if values.dtype.kind != "U"}


@pytest.fixture(scope="module")
def network(golden: dict[str, Tensor]) -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(400, 5)).double().eval()
    network.load_state_dict({name: golden[name] for name in network.state_dict()})
    return network


@pytest.fixture(scope="module")
def objective(network: nn.Module, golden: dict[str, Tensor]) -> Objective:
    return Objective(network, golden["targets"], "logit")


def input_times_gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The maps that Quantus was given."""
    return images * Objective(model, targets, "logit").gradients(images)[1]


@pytest.mark.parametrize("size", [2, 40])
def test_sensitivity_to_given_sets_is_quantus(
    objective: Objective, golden: dict[str, Tensor], size: int
) -> None:
    images, maps = golden["images"], golden["maps"]
    removed = torch.zeros(10, 3, 144, dtype=torch.bool)
    for number, chosen in enumerate(golden[f"sets_{size}"]):
        removed[number, :, chosen] = True
    found = set_correlation(
        objective,
        images,
        torch.stack([maps, -2 * maps]),
        Start(torch.zeros_like(images), [0, 1]),
        objective.values(images),
        removed.view(10, 3, 1, 12, 12),
    )
    expected = golden[f"faithfulness_{size}"]
    torch.testing.assert_close(found, torch.stack([expected, -expected]), rtol=0, atol=1e-6)


def test_a_linear_model_is_foretold_wholly_and_a_constant_map_not_at_all(
    linear_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    attributions = linear_net[1].weight[targets].view_as(images).detach() * images
    maps = torch.stack([attributions, torch.ones_like(images), torch.zeros_like(images)])
    exact, same, nothing = ro.sensitivity_n(Objective(linear_net, targets, "logit"), images, maps, seed=3)
    torch.testing.assert_close(exact, torch.ones(3, len(SHARES), dtype=torch.float64))
    assert same.isnan().all()  # sets of as many pixels have the same sums
    assert nothing.isnan().all()


def test_sets_belong_to_an_image_and_have_their_size() -> None:
    pictures = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    for share, both, alone in zip(SHARES, pixel_sets(pictures, 5), pixel_sets(pictures[1:], 5), strict=True):
        assert (both.flatten(2).sum(2) == round(share * 240)).all()
        assert torch.equal(both[:, 1:], alone)
        assert not torch.equal(both[:, 0], both[:, 1])


@pytest.mark.parametrize("step", [1, 5, 9])
def test_pixels_are_filled_in_as_by_others(golden: dict[str, Tensor], step: int) -> None:
    """Quantus' and pytorch-grad-cam's solution of the sparse equations; in float32 to its rounding."""
    missing = (pixel_ranks(pixel_saliency(golden["maps"])) < 144 * step // 10)[:, None]
    found = impute(golden["colours"], missing)
    torch.testing.assert_close(found, golden[f"filled_{step}"], rtol=0, atol=1e-8)
    rough = impute(golden["colours"].float(), missing)
    torch.testing.assert_close(rough.double(), golden[f"filled_{step}"], rtol=0, atol=2e-5)


def test_road_is_f_of_the_filled_images(
    objective: Objective, network: nn.Module, golden: dict[str, Tensor]
) -> None:
    """Of maps one by one, at its steps; noise is the image's own."""
    images, maps = golden["images"], golden["maps"]
    curve = ro.road(objective, images, torch.stack([maps, maps.flip(3)]), noise=0.0)
    assert curve.curve.shape == (2, 3, 10)
    torch.testing.assert_close(curve.fractions, torch.arange(10.0).double() / 10, rtol=0, atol=0.01)
    missing = (pixel_ranks(pixel_saliency(maps)) < 144 * 3 // 10)[:, None]
    torch.testing.assert_close(curve.curve[0, :, 3], objective.values(impute(images, missing)))
    small = Objective(network, objective.targets, "logit", internal_batch_size=2)
    noisy, alone = ro.road(objective, images, maps), ro.road(small, images, maps)
    torch.testing.assert_close(noisy.curve, alone.curve, rtol=1e-9, atol=1e-9)
    apart = (noisy.curve - curve.curve[0])[:, 1:]
    assert apart.abs().min() > 0
    assert apart.abs().max() < 0.5
    assert torch.equal(noisy.curve[:, 0], objective.values(images))


def test_a_plane_is_filled_in_as_it_was() -> None:
    """Each pixel of a plane is the mean of its neighbours: whatever is missing but the border comes back."""
    plane = (torch.arange(20.0)[:, None] + 2 * torch.arange(30.0)).double().expand(2, 3, 20, 30) / 80
    missing = torch.zeros(2, 1, 20, 30, dtype=torch.bool)
    missing[0, :, 1:-1, 1:-1] = True
    torch.testing.assert_close(impute(plane, missing), plane, rtol=0, atol=1e-9)


def test_sparseness_is_quantus_and_known(golden: dict[str, Tensor]) -> None:
    torch.testing.assert_close(ro.sparseness(golden["maps"]), golden["sparseness"], rtol=0, atol=1e-6)
    scaled = ro.sparseness(1000 * golden["maps"])
    torch.testing.assert_close(scaled, ro.sparseness(golden["maps"]))
    single, same = torch.zeros(1, 3, 4, 5), torch.ones(1, 3, 4, 5)
    single[0, 1, 2, 3] = -7
    assert ro.sparseness(single).item() == pytest.approx(19 / 20)
    assert ro.sparseness(same).item() == pytest.approx(0, abs=1e-12)
    assert ro.sparseness(0 * same).isnan().all()


def test_randomisation_is_quantus(network: nn.Module, golden: dict[str, Tensor]) -> None:
    """Layer by layer from the top, from the same chance; the model stays as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    found = ro.randomisation_check(network, golden["images"], golden["targets"], input_times_gradient, seed=7)
    assert found.layers == ("5", "2", "0")
    torch.testing.assert_close(found.similarity, golden["randomised"], rtol=0, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    last = ro.randomisation_check(
        network, golden["images"], golden["targets"], input_times_gradient, looks=1, seed=7
    )
    assert last.layers == ("0",)
    assert torch.equal(last.similarity[0], found.similarity[2])


def test_the_random_logit_is_quantus(network: nn.Module, golden: dict[str, Tensor]) -> None:
    examples = (network, golden["images"], golden["targets"], input_times_gradient)
    found = ro.random_logit_check(*examples, others=golden["others"])
    torch.testing.assert_close(found.similarity[0], golden["other_logit"], rtol=0, atol=1e-6)
    assert found.holds
    asked: list[Tensor] = []

    def noted(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        asked.append(targets)
        return input_times_gradient(model, images, targets)

    for seed in range(8):
        ro.random_logit_check(*examples[:3], noted, seed=seed)
    others = torch.stack(asked[1::2])
    assert (others != golden["targets"]).all()
    assert set(others[:, 0].tolist()) == {1, 2, 3, 4}


def test_sanity_checks_hold_for_integrated_gradients_and_fail_for_edges(
    classifier: nn.Module, photos: Tensor, predictions: Tensor
) -> None:
    """On photos and a network with ImageNet's weights: a Sobel filter knows nothing of the model."""
    schedule = ro.linear_schedule(3, "midpoint")

    def gradients(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return ro.integrated_gradients(model, images, targets, schedule, output="logit").maps

    examples = (classifier, photos[:2, :, ::2, ::2].contiguous(), predictions[:2])
    edges = ro.randomisation_check(*examples, lambda _, images, __: edge_map(images), looks=2)
    assert not edges.holds
    torch.testing.assert_close(edges.similarity, torch.ones(2, 2, dtype=torch.float64))
    assert not ro.random_logit_check(*examples, lambda _, images, __: edge_map(images)).holds
    found = ro.randomisation_check(*examples, gradients, looks=1)
    assert found.holds
    assert found.similarity[-1].abs().max() < 0.2
    assert ro.random_logit_check(*examples, gradients).holds


def normalised_head() -> nn.Module:
    head = nn.utils.parametrizations.weight_norm(nn.Linear(27, 5))
    return nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), head)


@pytest.mark.parametrize(
    ("make", "last"),
    [
        (vit, "vit.embeddings"),
        (lambda: VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5), "class_token"),
        (normalised_head, "2"),
    ],
)
def test_no_parameter_stays_in_the_end(make: Callable[[], nn.Module], last: str) -> None:
    """Tokens, embeddings, the projections of torch's attention and what makes up a weight are in no layer's
    `reset_parameters`."""
    model, generator = make().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    before = {name: one.clone() for name, one in model.named_parameters()}
    after: dict[str, Tensor] = {}

    def explain(shown: nn.Module, images: Tensor, _: Tensor) -> Tensor:
        after.update({name: one.clone() for name, one in shown.named_parameters()})
        return images

    pictures = torch.rand(2, 3, 32, 32, generator=generator)
    found = ro.randomisation_check(model, pictures, torch.zeros(2, dtype=torch.int64), explain)
    assert found.layers[-1].endswith(last)
    assert len(found.layers) == len({name.rpartition(".")[0] for name in before})
    assert [name for name, one in before.items() if torch.equal(one, after[name])] == []


def test_signs_by_chance_hide_no_edge_detector(images: Tensor, targets: Tensor) -> None:
    """Its signed ranks are those of noise, its absolute values the same in any model and of any class."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double().eval()
    chance = torch.Generator().manual_seed(0)

    def edges(_: nn.Module, x: Tensor, __: Tensor) -> Tensor:
        return edge_map(x) * (2 * torch.randint(2, (1, 1, 6, 6), generator=chance) - 1)

    checks = (ro.randomisation_check, ro.random_logit_check)
    for found in (check(model, images, targets, edges) for check in checks):
        assert found.similarity.mean() < 0.5
        torch.testing.assert_close(found.absolute_similarity, torch.ones(1, 3, dtype=torch.float64))
        assert not found.holds


def test_what_cannot_be_randomised_is_told(images: Tensor, targets: Tensor) -> None:
    bare = nn.Sequential(nn.AdaptiveAvgPool2d((1, 5)), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="model: expected layers with parameters, found none"):
        ro.randomisation_check(bare, images, targets, lambda _, x, __: x)
    with pytest.raises(ValueError, match="maps: expected the images' shape"):
        ro.randomisation_check(bare, images, targets, lambda _, x, __: x[:, :1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double().eval()
    with pytest.raises(ValueError, match="looks: expected a whole number of at least 1"):
        ro.randomisation_check(model, images, targets, lambda _, x, __: x, looks=0)


def test_what_is_compared_with_controls_takes_maps_of_any_scale(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """A control is in no unit of f: what depends on a map's size would tell methods from it by that alone."""
    objective = Objective(smooth_net, targets)
    maps = torch.randn(1, *images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    f, boxes = objective.values(images), [[ro.Box(0, 0, 3, 3)]] * len(images)
    batches = [MapBatch(objective, images, scale * maps, f, f[None], boxes=boxes) for scale in (1, 64)]
    compared = {name: metric for name, metric in METRICS.items() if metric.against_controls}
    assert len(compared) > 4
    for metric in compared.values():
        alone, scaled = (metric.compute(batch)[metric.against_controls] for batch in batches)
        torch.testing.assert_close(alone, scaled, rtol=1e-12, atol=0)
    alone, scaled = (METRICS["infidelity"].compute(batch)["infidelity"] for batch in batches)
    assert (scaled > 100 * alone).all()


@pytest.mark.parametrize("name", ["sensitivity_n", "road", "sparseness"])
def test_metrics_write_their_columns_and_cost_what_they_say(
    name: str, network: nn.Module, objective: Objective, golden: dict[str, Tensor]
) -> None:
    passes: list[int] = []
    f = objective.values(golden["images"])
    maps = torch.stack([golden["maps"], golden["maps"].flip(2)])
    batch = MapBatch(objective, golden["images"], maps, f_input=f, f_baseline=f.expand(2, 3))
    handle = network.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    columns = METRICS[name].compute(batch)
    handle.remove()
    metric = METRICS[name]
    assert sum(passes) == 3 * (metric.passes_an_image + metric.passes_a_start + 2 * metric.passes_a_map)
    assert set(columns) == {column.name for column in METRICS[name].columns}
    for column in METRICS[name].columns:
        values = columns[column.name]
        assert isinstance(values, Tensor)
        assert values.shape == (2, 3, *((len(column.x),) if column.kind == "list" else ()))
