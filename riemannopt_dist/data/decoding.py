"""From the bytes of a file to an 8-bit RGB image, and on to a model's input; what is wrong with a bad one.

Decoding gives 8-bit RGB as ImageNet evaluation with torchvision does: the first frame of an animation,
without regard to EXIF orientation. What is transparent is seen over black, the attributions' baseline.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import EXTRASAMPLES, TiffImageFile
from torch import Tensor

from riemannopt_dist.choices import Interpolation, height_and_width
from riemannopt_dist.data.errors import UnreadableImage
from riemannopt_dist.data.framing import Size, corner, covering
from riemannopt_dist.data.png import MAGIC, without_metadata

# Raster formats alone: Pillow hands EPS to an external program.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
_MAX_PIXELS = 89_478_485  # Pillow's own limit for a warning: 256 MiB of RGB
_MOST_PIXELS = {"JPEG2000": _MAX_PIXELS // 2}
"""Of formats whose decoder takes more memory than others: 28 bytes a pixel."""
_STRIP = 1 << 20
"""Pixels that are converted at a time."""
_LARGE = 4_000_000
"""Pixels of an image that is not decoded beside others."""
# One thread, always the same: what the C library keeps for it is used again, where each other thread would
# have as much of its own.
_DECODER = ThreadPoolExecutor(1, "decoder")


def image_tensor(
    data: bytes,
    input_size: Size,
    resize_size: Size,
    channels: int = 3,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """`prepare_image` of `decode_image`; of large images one at a time."""

    def made() -> Tensor:
        return prepare_image(decode_image(data), input_size, resize_size, channels, interpolation)

    return _DECODER.submit(made).result() if _pixels(data) > _LARGE else made()


def decode_image(data: bytes) -> Image.Image:
    """An RGB image, 8 bits a channel, from the bytes of a file; raises UnreadableImage.

    16-bit grey is divided by 257, so that 65,535 becomes 255; floating-point grey is taken as [0, 1].
    """
    if not data:
        raise UnreadableImage("empty file")
    try:
        with _opened(data) as image:
            if image.width * image.height > _MOST_PIXELS.get(image.format or "", _MAX_PIXELS):
                raise UnreadableImage(f"too large: {image.width} × {image.height} pixels")
            image.load()
            return to_rgb(image)
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"too large: more than {_MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image of a known format") from error
    # Damaged files raise nearly anything in Pillow: OSError, SyntaxError, ValueError, struct.error, …
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UnreadableImage(f"damaged: {reason or type(error).__name__}") from error


def _opened(data: bytes) -> Image.Image:
    """An image of which the header is read."""
    data = without_metadata(data) if data.startswith(MAGIC) else data
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _pixels(data: bytes) -> int:
    """The pixels of an image that its header tells, 0 where that is damaged."""
    try:
        with _opened(data) as image:
            return int(image.width * image.height)
    # As in decoding, which tells what is wrong.
    except Exception:
        return 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Strip by strip: what a conversion takes is many times an image."""
    if image.mode == "F" or image.mode.startswith("I"):
        convert = _from_deep_grey
    elif image.has_transparency_data and not _is_alpha_unused(image):
        convert = _over_black
    elif image.mode == "RGB":
        return image
    else:
        convert = _plain
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        rgb.paste(convert(image.crop(box)), box)
    return rgb


def _plain(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _over_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _is_alpha_unused(image: Image.Image) -> bool:
    """Whether the alpha channel is 0 everywhere, in a format that has bytes without a meaning there.

    32-bit BMPs are often written so, and TIFFs that do not say what their fourth channel is.
    """
    is_undefined = image.format == "BMP" or (
        isinstance(image, TiffImageFile) and EXTRASAMPLES not in image.tag_v2
    )
    return is_undefined and "A" in image.getbands() and image.getchannel("A").getextrema() == (0, 0)


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """RGB from 16-bit or floating-point grey, which Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):  # NaN too
        raise UnreadableImage(f"pixel values outside [0, {top:g}]")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8)).convert("RGB")


def toned(image: Image.Image, channels: int) -> Image.Image:
    """An RGB image as it is, or grey, by Rec. 601's weights, of one channel."""
    return image.convert("L") if channels == 1 else image


def prepare_image(
    image: Image.Image,
    input_size: Size,
    resize_size: Size,
    channels: int = 3,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """The middle of an image, `input_size` of it, scaled to just cover `resize_size` before, antialiased.

    Sizes are the side of a square or (height, width), in pixels. The image keeps its shape: of a square that
    it covers the short side of the image has the length. (channels, height, width), float32 in [0, 1]: the
    values of torchvision's presets with this interpolation. Of one channel it is grey, by Rec. 601's
    weights, before it is scaled. Raises UnreadableImage where one side is so much longer than the other that
    the image would become too large.
    """
    crop, box = height_and_width(input_size), height_and_width(resize_size)
    if crop[0] > box[0] or crop[1] > box[1]:
        raise ValueError(f"input_size: expected 1 to resize_size = {resize_size}, got {input_size}")
    width, height = covering(image.size, box)
    if width * height > _MAX_PIXELS:
        raise UnreadableImage(f"too elongated: {image.width} × {image.height} pixels")
    left, top = corner((width, height), crop)
    resized = toned(image, channels).resize((width, height), Image.Resampling[interpolation.upper()])
    pixels = np.array(resized.crop((left, top, left + crop[1], top + crop[0]))).reshape(*crop, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
