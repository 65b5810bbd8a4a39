"""How an image file becomes pixels: upright, of 8 bits, on white, and cut to size.

Called by image_files.py. A trained network sees new images through the same function.
"""

from collections.abc import Sequence
from typing import IO

import numpy as np
from PIL import Image, ImageOps

# A part of the name of a packed file. Raise it if pixels or the format of the file change.
DECODING = 2


def decoded(source: str | IO[bytes], shape: Sequence[int], on_white: bool = True) -> np.ndarray:
    """[C, H, W] uint8: the image upright, scaled until it covers H x W, and cut around its middle.

    Args:
        source: a path, or an open file.
        shape: (C, H, W); C is 3, or 1 for grey.
        on_white: lay an image with transparency on white, and fit 32 bits per pixel into 8. False:
            as older experiments did. They saw the colour of transparent pixels, mostly black.

    Raises:
        Exception: of any type, if the file is not an image.
    """
    channels, height, width = shape
    with Image.open(source) as file:
        # JPEG may skip detail that the resizing would throw away.
        file.draft("RGB", (2 * width, 2 * height))
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):
            image = _from_whole_numbers(image, is_tiff=on_white and file.format == "TIFF")
        elif image.mode == "F" and on_white:
            image = _from_fractions(image)
        if on_white and image.has_transparency_data:
            image = _on_white(image)
        image = image.convert("RGB")
        if channels == 1:
            image = image.convert("L")  # a grey image keeps its bytes
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _from_whole_numbers(image: Image.Image, is_tiff: bool) -> Image.Image:
    """Pixels of 16 or 32 bits as 8 bits; `convert()` would clip them.

    PIL calls a PNG of 16 bits and a TIFF of 32 bits the same. In a TIFF the values tell.
    """
    values = np.asarray(image, dtype=np.int64)
    if image.mode == "I" and is_tiff:
        scale = 1
        if values.max() >= 2**16:
            scale = 2**23  # 31 bits become 8 bits
        elif values.max() >= 2**8:
            scale = 2**8
        return _grey(values / scale)
    grey = _grey(values >> 8)
    transparent = image.info.get("transparency")  # a PNG names one value for 16 bits of grey
    if transparent is not None:
        grey.putalpha(_grey(np.where(values == transparent, 0, 255)))
    return grey


def _from_fractions(image: Image.Image) -> Image.Image:
    """Values in 0 .. 1, or in 0 .. 255, as 8 bits."""
    values = np.nan_to_num(np.asarray(image))
    return _grey(values * 255 if values.max() <= 1 else values)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # PIL has no direct way to RGBA
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
