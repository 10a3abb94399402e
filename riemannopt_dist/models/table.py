"""The sources of models by the kind of their names. A new one is a file, and an entry here."""

from riemannopt_dist.models.efficientnet_lite import EFFICIENTNET_LITE
from riemannopt_dist.models.errors import closest
from riemannopt_dist.models.factory import FACTORY
from riemannopt_dist.models.hugging_face import HUGGING_FACE
from riemannopt_dist.models.recipe import Recipe
from riemannopt_dist.models.source import Source
from riemannopt_dist.models.timm_models import TIMM
from riemannopt_dist.models.torchvision_models import TORCHVISION

SOURCES: tuple[Source, ...] = (TIMM, HUGGING_FACE, FACTORY, EFFICIENTNET_LITE, TORCHVISION)
"""The first that takes a name has it: what has a colon is the user's own, what has none is torchvision's."""


def source_of(name: str) -> Source:
    """Where the model called `name` would come from."""
    return next(source for source in SOURCES if source.takes(name))


def recipe_of(name: str, weights: str | None) -> Recipe:
    """What a name asks for. Raises ValueError for an unknown one, with the closest known ones."""
    recipe = source_of(name).recipe(name, weights)
    if recipe is None:
        known = [model for source in SOURCES for model in source.names()]
        raise ValueError(f"model: unknown name {name!r}{closest(name, known)}")
    return recipe
