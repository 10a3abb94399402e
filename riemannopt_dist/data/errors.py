"""What is wrong with an image that is no image, not there, or another one."""

from riemannopt_dist.storage.errors import StorageError


class UnreadableImage(ValueError):
    """An image that cannot be read; the message is a short reason."""


class UnreachableImage(StorageError):
    """An image that its storage does not give now, and may give later: gone, denied, cut short, no answer."""


class ReplacedImage(RuntimeError):
    """Another image under the name of one that was selected."""
