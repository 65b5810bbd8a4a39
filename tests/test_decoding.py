"""Image files as pixels: upright, cut around the middle, of any mode, and on white."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from dora_train.data.decoding import decoded

INK = np.zeros((12, 12, 4), np.uint8)  # black ink on black nothing
INK[4:8, 4:8, 3] = 255


def pixels_of(
    image: Image.Image, tmp_path: Path, name: str = "x.png", size: int = 8, **how: Any
) -> np.ndarray:
    image.save(tmp_path / name, **how)
    return decoded(str(tmp_path / name), (3, size, size))


def from_memory(image: Image.Image, kind: str, on_white: bool = True, **how: Any) -> np.ndarray:
    """[12, 12, 3] uint8."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    file.seek(0)
    return decoded(file, (3, 12, 12), on_white).transpose(1, 2, 0)


def test_it_is_what_torchvision_sees(tmp_path: Path):
    """An image of the wanted size goes through unchanged."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    for name in ("x.jpg", "x.png", "x.webp", "x.bmp", "x.tif", "x.ppm"):
        found = pixels_of(Image.fromarray(pixels), tmp_path, name, size=9)
        assert np.array_equal(
            found.transpose(1, 2, 0), np.asarray(default_loader(str(tmp_path / name)))
        ), name


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_any_kind_of_image_becomes_three_channels(mode: str, tmp_path: Path):
    image = Image.new("RGB", (20, 12), (255, 255, 255)).convert(mode)
    found = pixels_of(image, tmp_path, "x.jpg" if mode == "CMYK" else "x.png")
    assert found.shape == (3, 8, 8) and found.dtype == np.uint8 and found.min() >= 254


# --- transparency ---


def _transparent() -> dict[str, tuple[Image.Image, str, dict[str, Any]]]:
    """Black ink on nothing, in each of the ways that files have for it."""
    rgba = Image.fromarray(INK)
    ink = INK[..., 3] > 0
    grey = Image.fromarray(np.where(ink, 0, 7).astype(np.uint8))
    palette = Image.fromarray(ink.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    return {
        "RGBA png": (rgba, "PNG", {}),
        "RGBA webp": (rgba, "WEBP", {"lossless": True}),
        "RGBA tif": (rgba, "TIFF", {}),
        "LA png": (rgba.convert("LA"), "PNG", {}),
        "PA tif": (rgba.convert("PA"), "TIFF", {}),
        "P, one colour": (palette, "PNG", {"transparency": 0}),
        "P, a share for each": (palette, "PNG", {"transparency": b"\x00\xff"}),
        "L, one value": (grey, "PNG", {"transparency": 7}),
        "RGB, one colour": (grey.convert("RGB"), "PNG", {"transparency": (7, 7, 7)}),
        "16 bits, one value": (
            Image.fromarray(np.where(ink, 0, 7).astype(np.uint16)),
            "PNG",
            {"transparency": 7},
        ),
    }


@pytest.mark.parametrize("name", _transparent())
def test_what_is_transparent_is_white(name: str):
    image, kind, how = _transparent()[name]
    wanted = np.where(INK[..., 3:] > 0, 0, 255) * np.ones(3)
    assert np.array_equal(from_memory(image, kind, **how), wanted)
    assert from_memory(image, kind, on_white=False, **how).max() <= 7, (
        "older experiments keep what they saw"
    )


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (12, 12), (0, 100, 200, 127))
    assert abs(from_memory(image, "PNG").astype(int) - (128, 178, 228)).max() <= 1


def test_an_opaque_image_is_as_it_was():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    image = Image.fromarray(pixels)
    assert np.array_equal(from_memory(image, "PNG"), from_memory(image, "PNG", on_white=False))


# --- more than 8 bits ---


def test_16_bits_are_scaled_not_clipped(tmp_path: Path):
    found = pixels_of(Image.fromarray(np.full((12, 20), 0x4000, np.uint16)), tmp_path)
    assert found.shape == (3, 8, 8) and (found == 0x40).all()


@pytest.mark.parametrize(
    "values, kind, seen",
    [
        (np.uint16(0x4000), "TIFF", 0x40),
        (np.int32(0x4000), "TIFF", 0x40),
        (np.int32(0x4000), "PPM", 0x40),
        (np.int32(200), "TIFF", 200),
        (np.int32(0x40000000), "TIFF", 128),
        (np.float32(0.5), "TIFF", 128),
        (np.float32(0.5), "PPM", 128),
        (np.float32(200), "TIFF", 200),
    ],
)
def test_other_numbers_fill_the_range_of_a_pixel(values: Any, kind: str, seen: int):
    image = Image.fromarray(np.full((12, 12), values))
    assert (from_memory(image, kind) == seen).all()


# --- geometry ---


def test_the_middle_is_kept_and_nothing_is_squeezed(tmp_path: Path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (pixels_of(Image.fromarray(wide), tmp_path, size=10) == 200).all()
    assert (pixels_of(Image.fromarray(wide.transpose(1, 0, 2)), tmp_path, size=10) == 200).all()


def test_the_camera_was_held_upright(tmp_path: Path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees, clockwise: the top comes to the right
    found = pixels_of(Image.fromarray(pixels), tmp_path, "x.jpg", size=16, exif=exif, quality=100)
    assert found[:, :, 12:].min() > 200 and found[:, :, :4].max() < 50


def test_a_large_photograph_is_reduced_well(tmp_path: Path):
    """JPEG's draft mode must not change what is seen: by rounding, at most."""
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (800, 1))] * 3, axis=-1))
    found = pixels_of(image, tmp_path, "x.jpg", size=16, quality=95)
    wanted = np.asarray(Image.open(tmp_path / "x.jpg").resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(found.transpose(1, 2, 0).astype(int) - wanted).max() <= 1
