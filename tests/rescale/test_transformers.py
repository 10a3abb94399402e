"""Transformers under the Rescale rule: complete to rounding, in every layout, and near to their integrals."""

from collections.abc import Callable
from functools import cache

import pytest
import timm
import torch
import torchvision
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

import riemannopt_dist as ro
from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
from riemannopt_dist.estimators.converged import converge
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule

EVEN = Profile((0.25, 0.75), (1.0, 1.0), (0.0, 0.0), 2, roughness=(1.0, 1.0))
TRAINING, EPOCHS, EXPLAINED = 1400, 14, 4
SMALL = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
WINDOWS = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
STAGES = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
CHANNELS = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}
swin = torchvision.models.swin_transformer


class Encoder(nn.Module):
    """A class token and patches, position embeddings, and torch's own encoder in either layout."""

    def __init__(self, width: int = 32, side: int = 8, patch: int = 4, batch_first: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.1 * torch.randn(1, (side // patch) ** 2 + 1, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.0, "gelu", batch_first=batch_first, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)
        self.batch_first = batch_first

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = self.encoder(x) if self.batch_first else self.encoder(x.transpose(0, 1)).transpose(0, 1)
        return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]


def small_vit() -> nn.Module:
    return VisionTransformer(8, 4, 1, 10, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2)


def named(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=10, **options)


NETWORKS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "vit": (64, named("vit_tiny_patch16_224", img_size=64, depth=4)),
    "vit, interpolated": (48, named("vit_tiny_patch16_224", img_size=64, depth=2, dynamic_img_size=True)),
    "vit, SwiGLU, rotary": (56, named("eva02_tiny_patch14_224", img_size=56, depth=2)),
    "vit, pooled by attention": (
        64,
        named("vit_base_patch16_siglip_224", img_size=64, depth=1, embed_dim=96, num_heads=4),
    ),
    "deit, distilled": (64, named("deit_tiny_distilled_patch16_224", img_size=64, depth=2)),
    "deit 3": (64, named("deit3_small_patch16_224", img_size=64, depth=1)),
    "cait": (64, named("cait_xxs24_224", img_size=64, depth=2)),
    "xcit": (64, named("xcit_nano_12_p16_224", depth=2)),
    "swin": (64, named("swin_tiny_patch4_window7_224", img_size=64, **STAGES)),
    "swin 2": (64, named("swinv2_tiny_window8_256", img_size=64, **STAGES)),
    "convnext": (64, named("convnext_atto", **CHANNELS)),
    "convnext 2": (64, named("convnextv2_atto", **CHANNELS)),
    "mobilevit": (64, named("mobilevit_xxs")),
    "torchvision's vit": (32, lambda: torchvision.models.VisionTransformer(**SMALL)),
    "torchvision's swin": (32, lambda: swin.SwinTransformer([4, 4], **WINDOWS)),
    "torchvision's swin 2": (
        32,
        lambda: swin.SwinTransformer(
            [4, 4],
            **WINDOWS,
            block=swin.SwinTransformerBlockV2,
            downsample_layer=swin.PatchMergingV2,
        ),
    ),
    "torchvision's maxvit": (
        64,
        lambda: torchvision.models.MaxVit((64, 64), 16, 2, [16, 32], [1, 1], 16, 0.0),
    ),
}


def randomised(network: nn.Module) -> nn.Module:
    """The network in evaluation and float64, every parameter of a size that matters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.double().eval().requires_grad_(False).parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim > 1 and parameter.shape[0] > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.add_(0.1 * noise)
    return network


def noise(side: int, channels: int = 3, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, side, side, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_transformers_are_complete_to_rounding(name: str) -> None:
    """The logit's change from black to noise, in one interval and in three."""
    side, make = NETWORKS[name]
    network, image = randomised(make()), noise(side)
    target = network(image).argmax(1)
    result = rescale_attribution(
        Objective(network, target, "logit"), StraightPath.from_black(image), linear_schedule(2)
    )
    change = float(result.f_input - result.f_baseline)
    assert abs(change) > 1e-5
    assert float(result.maps.sum()) == pytest.approx(change, rel=1e-9)


class OwnAttention(nn.Module):
    """Attention as tutorials write it, tokens first and without a batch's axis where it can do without."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.query, self.key, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.flat = flat

    def forward(self, images: Tensor) -> Tensor:
        x = (
            self.patches(images).flatten(2).permute(2, 0, 1)
            if self.flat
            else self.patches(images).flatten(2).mT
        )
        middle = x.mean(0) if self.flat else x.mean(1, keepdim=True)
        x = functional.gelu(x * middle)  # of three axes and of two where tokens come first
        form = "qbc,kbc->bqk" if self.flat else "bqc,bkc->bqk"
        weights = torch.einsum(form, self.query(x), self.key(x)).softmax(-1)
        x = torch.einsum("bqk,kbc->qbc" if self.flat else "bqk,bkc->bqc", weights, x)
        return self.head(functional.normalize(x.amax(0 if self.flat else 1)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "make", [lambda first: Encoder(batch_first=not first), lambda first: OwnAttention(flat=first)]
)
def test_tokens_may_come_first(make: Callable[[bool], nn.Module]) -> None:
    """The same network has the same maps in both layouts, whatever the micro-batches."""
    images = noise(8, channels=1, count=2)
    targets, path = torch.tensor([2, 0]), StraightPath.from_black(images)
    usual, network = randomised(make(False)), randomised(make(True))
    network.load_state_dict(usual.state_dict())
    expected = rescale_attribution(Objective(usual, targets), path, linear_schedule(3))
    placed = adaptive_rescale_attribution(Objective(usual, targets), path, EVEN, 4)
    for size in (1, 32):
        objective = Objective(network, targets, internal_batch_size=size)
        result = rescale_attribution(objective, path, linear_schedule(3))
        torch.testing.assert_close(result.maps, expected.maps, rtol=0, atol=1e-13)
        result = adaptive_rescale_attribution(objective, path, EVEN, 4)
        torch.testing.assert_close(result.maps, placed.maps, rtol=0, atol=1e-13)


@cache
def trained(make: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor, Tensor, float]:
    """A network trained on most of scikit-learn's digits, the others and their labels, and its accuracy."""
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float()[:, None]
    labels = torch.from_numpy(digits.target)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        order = torch.randperm(len(images))
        images, labels = images[order], labels[order]
        network = make()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-2, fused=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * 10)
        for _ in range(EPOCHS):
            for batch in torch.randperm(TRAINING).view(-1, 140):
                optimizer.zero_grad()
                functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimizer.step()
                scheduler.step()
    network.double().eval().requires_grad_(False)
    images, labels = images[TRAINING:].double(), labels[TRAINING:]
    return network, images, labels, float((network(images).argmax(1) == labels).double().mean())


@cache
def integral(make: Callable[[], nn.Module]) -> tuple[Objective, Tensor, Tensor]:
    """A trained network's probabilities of some digits, these, and their maps from 2,048 intervals."""
    network, images, labels, _ = trained(make)
    objective = Objective(network, labels[:EXPLAINED], internal_batch_size=256)
    images = images[:EXPLAINED]
    return objective, images, converge(objective, StraightPath.from_black(images), 2048).maps


def error(maps: Tensor, reference: Tensor) -> float:
    return float(compare(maps, reference).error.mean())


@pytest.mark.parametrize("make", [Encoder, small_vit])
def test_a_trained_transformer_is_nearer_than_with_samples(make: Callable[[], nn.Module]) -> None:
    """Digits, with 16 evaluations: the Rescale rule's maps and the trapezoid's against the integral."""
    assert trained(make)[-1] >= 0.95
    objective, images, reference = integral(make)
    path = StraightPath.from_black(images)
    result = rescale_attribution(objective, path, linear_schedule(16))
    assert error(result.maps, reference) < 0.7 * error(converge(objective, path, 16).maps, reference)


@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("make", [Encoder, small_vit])
def test_a_trained_transformer_is_complete(make: Callable[[], nn.Module], output: Output) -> None:
    network, images, labels, _ = trained(make)
    path = StraightPath.from_black(images[:EXPLAINED])
    for intervals in (1, 3, 16):
        objective = Objective(network, labels[:EXPLAINED], output)
        result = rescale_attribution(objective, path, linear_schedule(intervals))
        sums, change = result.maps.flatten(1).sum(1), result.f_input - result.f_baseline
        torch.testing.assert_close(sums, change, rtol=1e-9, atol=0)


def test_every_estimator_comes_near_on_a_transformer() -> None:
    """All that tend to the integral: 64 samples are off by a fifth of what 8 are at most."""
    objective, images, reference = integral(small_vit)
    for name, estimator in ESTIMATORS.items():
        if estimator.tends_to_integral and estimator.refusal(ro.Straight(), "linear", 8) is None:
            few, many = (
                ro.attribute(objective.model, images, objective.targets, estimator=name, samples=count)
                for count in (8, 64)
            )
            assert error(many.maps, reference) < error(few.maps, reference) / 5, name
