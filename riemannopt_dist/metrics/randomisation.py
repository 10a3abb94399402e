"""Sanity checks (Adebayo et al., NeurIPS 2018): a map has to change with the model, and with the class.

A map that stays when the model's parameters are replaced by chance, layer by layer from the top, explains the
image rather than the model; one that is the same for another class explains no class. Maps are compared by
the rank correlation of their channel sums, and by that of the sums' absolute values: signs that change by
chance hide from the first that an edge detector stays where it was.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images, check_positive
from riemannopt_dist.differentiation import copy_of
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.metrics.reference import rank_correlation
from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.objective import Objective, logits_of

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Makes maps (B, C, H, W) from a model, images (B, C, H, W) and targets (B,)."""
ALIKE = 0.5
"""The mean rank correlation above which maps count as the same."""


@dataclass(frozen=True, eq=False)
class Sameness:
    """How alike maps are to the model's own: rank correlations in [−1, 1], float64.

    `similarity` is that of pixels with their signs, `absolute_similarity` that of their absolute values.
    After the randomisation of each of L `layers`, from the top, both are (L, B); of another class they are
    (1, B), and `layers` is empty. NaN where a map is constant.
    """

    similarity: Tensor
    absolute_similarity: Tensor
    layers: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the maps have changed: in the end both means over images are at most `ALIKE`."""
        both = torch.stack([self.similarity[-1], self.absolute_similarity[-1]])
        return bool((both.nanmean(1) <= ALIKE).all())


def randomisation_check(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    explain: Explain,
    *,
    looks: int | None = None,
    seed: int = 0,
) -> Sameness:
    """How alike maps stay while the model's layers are randomised from the top down, one after another.

    `explain` makes the maps, such as `lambda model, images, targets: integrated_gradients(model, images,
    targets, schedule).maps`. It is called once, and after every layer, or `looks` times on the way. Layers
    are the modules with parameters of their own, in the reverse of the order in which the model has them:
    they draw new ones, as when they were made. Those that no layer draws (a class token, a position
    embedding, a layer scale) are permuted, which leaves constants as they are. The model itself stays as it
    is.

    Raises ValueError for a model without parameters, images and targets that do not fit, and maps of another
    shape.
    """
    own = _own_maps(model, images, targets, explain)
    alike = {
        name: _alike(explain(randomised, images, targets), own)
        for name, randomised in _randomised(model, looks, seed)
    }
    signed, absolute = torch.stack([*alike.values()], dim=1)
    return Sameness(signed, absolute, tuple(alike))


def random_logit_check(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    explain: Explain,
    *,
    others: Tensor | None = None,
    seed: int = 0,
) -> Sameness:
    """How alike maps are to those of another class (Sixt et al., ICML 2020).

    The classes are `others` (B,), or drawn by `seed` and the images' content. Errors are those of
    `randomisation_check`.
    """
    own = _own_maps(model, images, targets, explain)
    if others is None:
        with torch.no_grad():
            classes = logits_of(model, images[:1]).shape[1]
        if classes < 2:
            raise ValueError(f"model: expected at least two classes, got {classes}")
        draws = torch.tensor([(content + seed) % (classes - 1) for content in content_seeds(images)])
        others = (targets + 1 + draws.to(targets)) % classes
    signed, absolute = _alike(explain(model, images, others), own)[:, None]
    return Sameness(signed, absolute)


def _own_maps(model: nn.Module, images: Tensor, targets: Tensor, explain: Explain) -> Tensor:
    check_images(images)
    Objective(model, targets).check(images)
    maps = explain(model, images, targets)
    check_maps(maps, images)
    return maps


def _randomised(model: nn.Module, looks: int | None, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """The model at each look, and the name of its layer that was randomised last.

    Chance is the host's, one stream for all layers: the same on every device, whatever is drawn between.
    """
    shown, on_host = copy_of(model), copy_of(model).cpu()
    layers = _layers(on_host)
    if not layers:
        raise ValueError("model: expected layers with parameters, found none to randomise")
    count = len(layers) if looks is None else looks
    check_positive(count, "looks")
    seen = {-(-len(layers) * look // count) for look in range(1, count + 1)}
    state = torch.Generator().manual_seed(seed).get_state()
    for number, (name, layer) in enumerate(reversed(layers.items()), start=1):
        with torch.random.fork_rng([]):
            torch.set_rng_state(state)
            _randomise(layer)
            state = torch.get_rng_state()
        if number in seen:
            shown.load_state_dict(on_host.state_dict())
            yield name, shown


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with parameters of their own, or that draw some, by name; the model itself by those it has."""
    own = {name: [*dict(one.named_parameters(recurse=False))] for name, one in model.named_modules()}
    return {
        name or ", ".join(own[name]) or type(model).__name__: layer
        for name, layer in model.named_modules()
        if own[name] or _redraw(layer) is not None
    }


def _redraw(layer: nn.Module) -> Callable[[], object] | None:
    """What draws a layer's parameters anew; torch's attention alone keeps it to itself."""
    redraw: Callable[[], object] | None = getattr(layer, "reset_parameters", None)
    return layer._reset_parameters if isinstance(layer, nn.MultiheadAttention) else redraw


@torch.no_grad()
def _randomise(layer: nn.Module) -> None:
    """New parameters for a layer; those that it leaves as they are, permuted."""
    before = [parameter.clone() for parameter in layer.parameters(recurse=False)]
    if (redraw := _redraw(layer)) is not None:
        redraw()
    for old, parameter in zip(before, layer.parameters(recurse=False), strict=True):
        if torch.equal(old, parameter):
            parameter.copy_(old.flatten()[torch.randperm(old.numel())].view_as(old))


def _alike(maps: Tensor, own: Tensor) -> Tensor:
    """The rank correlation of channel sums, and of their absolute values, (2, B)."""
    check_maps(maps, own)
    a, b = (one.sum(1, dtype=torch.float64).flatten(1) for one in (maps, own))
    return torch.stack([rank_correlation(a, b), rank_correlation(a.abs(), b.abs())])
