"""Where images and labels come from, how they are read and decoded, and what is wrong with a bad one."""

from riemannopt_dist.images.decoding import decode_image, image_tensor, prepare_image
from riemannopt_dist.images.files import Files, files_of
from riemannopt_dist.images.image_ref import ImageRef, ReplacedImage, UnreachableImage, UnreadableImage
from riemannopt_dist.images.listing import list_images
from riemannopt_dist.images.reading import ImageReader, read_image

__all__ = [
    "Files",
    "ImageReader",
    "ImageRef",
    "ReplacedImage",
    "UnreachableImage",
    "UnreadableImage",
    "decode_image",
    "files_of",
    "image_tensor",
    "list_images",
    "prepare_image",
    "read_image",
]
