"""Files of images, written and read whole."""

import io

from PIL import Image

from riemannopt_dist.data.files import files_of, name_of
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.data.reading import ImageReader


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of an image's file, with options of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def read_image(address: str) -> bytes:
    """The bytes of the file at a path or an s3://, gs:// or https:// address. Errors are `ImageReader`'s."""
    ref = ImageRef(address, name_of(address), None)
    with ImageReader(files_of(address), [ref]) as reader:
        return reader.read(ref)
