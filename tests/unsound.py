"""Models as users bring them: most of them cannot be explained. All take pictures of SIDE × SIDE pixels."""

import random
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import prune

from riemannopt_dist.testing.small_world import SIDE

Pair = namedtuple("Pair", ["logits", "features"])


class Net(nn.Module):
    """Convolution, ReLU, mean, linear layer; `before` is applied to the images, `after` to the logits."""

    input_size = resize_size = SIDE

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Any] = lambda y: y,
        classes: int = 5,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, classes)
        self.before, self.after = before, after

    def forward(self, images: Tensor) -> Any:
        return self.after(self.head(self.conv(self.before(images)).relu().mean((2, 3))))


class Opaque(torch.autograd.Function):
    """An operation without a derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise NotImplementedError("no derivative")


class Counting(Net):
    """Its logits grow from call to call."""

    def forward(self, images: Tensor) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(images) + 0.01 * self.calls


class Half(Net):
    """Computes in half precision, and says so."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images).half()


class Silent(Net):
    """Computes where no gradient is noted."""

    def forward(self, images: Tensor) -> Any:
        with torch.inference_mode():
            return super().forward(images)


class Double(Net):
    """Computes in float64, from images in float32."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images.double())


class Viewing(Net):
    """Takes its feature maps to lie channel by channel in memory."""

    def forward(self, images: Tensor) -> Any:
        maps = self.conv(images).relu()
        return self.head(maps.view(len(maps), -1).unflatten(1, (8, -1)).mean(2))


def now_and_then(x: Tensor) -> Tensor:
    """A rare, small change, told by no two passes."""
    return x + 1e-9 if random.random() < 1e-9 else x


def standardised_by_batch(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dict": (
        lambda: Net(after=lambda y: {"logits": y}),
        r"got dict with 'logits': return out\['logits'\], or give output_key: logits$",
    ),
    "other key": (
        lambda: Net(after=lambda y: OrderedDict(loss=y.sum(), scores=y)),
        r"OrderedDict with 'loss', 'scores': return out\['scores'\], or give output_key: scores$",
    ),
    "tuple": (
        lambda: Net(after=lambda y: (y, y)),
        r"got tuple of 2: return out\[0\], or give output_key: 0$",
    ),
    "list": (
        lambda: Net(after=lambda y: [y.sum(), y]),
        r"got list of 2: return out\[1\], or give output_key: 1$",
    ),
    "named tuple": (
        lambda: Net(after=lambda y: Pair(y, y)),
        r"Pair of 2: return out.logits, or give output_key: logits$",
    ),
    "object": (
        lambda: Net(after=lambda y: SimpleNamespace(logits=y)),
        r"SimpleNamespace: return out.logits, or give output_key: logits$",
    ),
    "nothing": (lambda: Net(after=lambda y: None), r"got NoneType: return the tensor alone$"),
    "array": (
        lambda: Net(after=lambda y: y.detach().numpy()),
        r"got numpy.ndarray: return the tensor alone$",
    ),
    "vector": (
        lambda: Net(after=lambda y: y.squeeze(1), classes=1),
        r"shape \(2,\) for 2 image.*torch.stack",
    ),
    "scalar": (
        lambda: Net(after=lambda y: y.sum()),
        r"shape \(\) for 2 image\(s\): keep a row for each image$",
    ),
    "square": (
        lambda: Net(after=lambda y: y[..., None, None]),
        r"\(2, 5, 1, 1\) .*: return out.flatten\(1\)$",
    ),
    "pixels": (
        lambda: Net(after=lambda y: y[..., None, None].expand(-1, -1, 4, 4)),
        r"\(2, 5, 4, 4\) .*such as out.mean\(\(2, 3\)\)$",
    ),
    "one row": (
        lambda: Net(after=lambda y: y.mean(0, keepdim=True)),
        r"\(1, 5\) .*keep a row for each image$",
    ),
    "squeezed": (
        lambda: Net(after=lambda y: y.squeeze()),
        r"shape \(5,\) for 1 image.* \.squeeze\(\) does not$",
    ),
    "one logit": (lambda: Net(classes=1), r"expected two classes or more, got 1, .*torch.stack"),
    "classes": (
        lambda: Net(after=lambda y: y.argmax(1, keepdim=True)),
        r"got torch.int64: return the logits",
    ),
    "probabilities": (
        lambda: Net(after=lambda y: y.softmax(1)),
        r"got probabilities .*: leave out its softmax$",
    ),
    "half": (lambda: Net().half(), r"its 'conv.weight' is torch.float16: return model.float\(\)$"),
    "bfloat16": (lambda: Net().bfloat16(), r"its 'conv.weight' is torch.bfloat16: return model.float\(\)$"),
    "double": (
        lambda: Net().double(),
        r"shape \(2, 3, 12, 12\).*'conv.weight' is torch.float64: return model.float",
    ),
    "half logits": (Half, r"logits of torch.float32, got torch.float16: return logits.float\(\)$"),
    "detached": (lambda: Net(after=lambda y: y.detach()), r"its logits have no gradient"),
    "inference mode": (Silent, r"its logits have no gradient"),
    "rounded": (lambda: Net(before=torch.round), r"have a gradient of zero everywhere"),
    "constant": (
        lambda: Net(before=torch.zeros_like),
        r"have a gradient of zero everywhere|have no gradient",
    ),
    "opaque": (
        lambda: Net(before=Opaque.apply),
        r"its backward pass fails: NotImplementedError: no derivative$",
    ),
    "through numpy": (
        lambda: Net(before=lambda x: torch.from_numpy(x.numpy())),
        r"its forward pass fails on images of shape \(1, 3, 12, 12\) .*Can't call numpy",
    ),
    "not finite": (lambda: Net(after=lambda y: y / 0), r"its logits are not finite"),
    "slope not finite": (
        lambda: Net(before=lambda x: (x - x).sqrt() + x),
        r"gradient of its logits is not finite",
    ),
    "other size": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5)),
        r"fails on images of shape \(2, 3, 224, 224\) .*RuntimeError: mat1 and mat2 shapes",
    ),
    "dropout": (lambda: Net(before=nn.functional.dropout), r"depends on chance"),
    "rare dropout": (lambda: Net(before=lambda x: nn.functional.dropout(x, 1e-7)), r"depends on chance"),
    "noise": (lambda: Net(before=lambda x: x + 1e-3 * torch.randn_like(x)), r"depends on chance"),
    "rare chance": (lambda: Net(before=now_and_then), r"depends on chance"),
    "counting": (Counting, r"depends on chance, two passes of the same images differ"),
    "batch": (lambda: Net(before=standardised_by_batch), r"differ in a batch and alone"),
    "batch softmax": (lambda: Net(after=lambda y: y.softmax(0)), r"differ in a batch and alone"),
    "batch mean": (lambda: Net(after=lambda y: y - y.mean(0)), r"differ in a batch and alone"),
    "batch normalisation": (
        lambda: Net(before=lambda x: nn.functional.batch_norm(x, None, None, training=True)),
        r"differ in a batch and alone",
    ),
    "statistics": (
        lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)),
        r"running statistics",
    ),
}
"""What cannot be explained, each with how its refusal reads."""


def viewing() -> nn.Module:
    return Viewing()


def weight_norm() -> nn.Module:
    net = Net()
    nn.utils.weight_norm(net.conv)
    return net


def parametrised() -> nn.Module:
    net = Net()
    nn.utils.parametrizations.weight_norm(net.conv)
    return net


def spectral_norm() -> nn.Module:
    net = Net()
    nn.utils.spectral_norm(net.conv)
    return net


def pruned() -> nn.Module:
    net = Net()
    prune.l1_unstructured(net.conv, "weight", 0.5)
    return net


def seeded() -> nn.Module:
    """Noise, but always the same."""

    def noisy(x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return x + 0.1 * torch.randn_like(x[:1])

    return Net(before=noisy)


def tables() -> nn.Module:
    """A weight of five axes, which no memory format of images fits."""
    net = Net()
    net.table = nn.Parameter(torch.ones(1, 1, 1, 1, 3))
    return net


def in_place() -> nn.Module:
    return Net(before=lambda x: x.sub_(0.5).mul_(2.0))


def double_inside() -> nn.Module:
    return Double().double()


def plain() -> nn.Module:
    return Net()


def log_probabilities() -> nn.Module:
    return Net(after=lambda y: y.log_softmax(1))


def two_classes() -> nn.Module:
    return Net(after=lambda y: torch.cat([torch.zeros_like(y), y], 1), classes=1)


ACCEPTED: list[Callable[[], nn.Module]] = [
    plain,
    double_inside,
    viewing,
    weight_norm,
    parametrised,
    spectral_norm,
    pruned,
    seeded,
    tables,
    in_place,
    log_probabilities,
    two_classes,
]
"""What can be explained though it looks odd."""


def dictionary() -> nn.Module:
    return Net(after=lambda y: {"logits": y})


def unregistered() -> nn.Module:
    """Its logits depend on a number that no weight holds, another one in each model that is built."""
    unregistered.built = getattr(unregistered, "built", 0) + 1  # type: ignore[attr-defined]
    offset = unregistered.built  # type: ignore[attr-defined]
    return Net(before=lambda x: x + offset)


def standardised() -> nn.Module:
    """Divides by the image's deviation: NaN on an image of one colour, such as black."""
    axes = (1, 2, 3)
    return Net(before=lambda x: (x - x.mean(axes, keepdim=True)) / x.std(axes, keepdim=True))


def partial() -> nn.Module:
    """Sure of every picture of noise; NaN where a part of it is black, or where it is smoother."""

    class Partial(Net):
        def forward(self, images: Tensor) -> Any:
            smooth = images.diff().abs().mean((1, 2, 3)) < 0.6 * images.mean((1, 2, 3))
            black = (images == 0).all(1).flatten(1).double().mean(1)
            fault = smooth | ((black > 0.01) & (black < 1))
            return (200 * super().forward(images)).where(~fault[:, None], torch.nan)

    return Partial()
