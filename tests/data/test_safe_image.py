"""Pictures become eight bits a channel as people see them: whatever their depth, which way up, and on what."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from comln.data.data_error import DataError
from comln.data.prepare import check, prepare
from comln.data.prepared import load_prepared
from comln.data.safe_image import ORIENTATION, decode_image, eight_bits
from comln.data.sources.image_folder import ImageFolder
from comln.data.sources.mini_imagenet import MiniImageNet
from tests.data import fabricated as made


def encoded(image, form="PNG", **options):
    """Return a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def held(orientation):
    """Return EXIF data that say how a camera was held."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def silent(split, done, total):
    """No progress."""


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_grey_pictures_of_sixteen_bits_keep_their_brightness(mode):
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    pixels = decode_image(encoded(Image.fromarray(values)), "x.png", None, mode)
    for channel in range(pixels.shape[-1]):
        np.testing.assert_array_equal(pixels[..., channel], np.rint(values / 257))


@pytest.mark.parametrize(("mode", "order"), [("I;16", "<u2"), ("I;16B", ">u2")])
def test_sixteen_bits_are_read_in_either_order_of_bytes(mode, order):
    values = np.arange(0, 1 << 16, 257, dtype=np.uint16).reshape(16, 16)
    image = Image.frombytes(mode, (16, 16), values.astype(order).tobytes())
    np.testing.assert_array_equal(np.asarray(eight_bits(image, "x.png")), np.arange(256).reshape(16, 16))


def test_colours_of_sixteen_bits_keep_their_brightness():
    values = np.arange(0, 1 << 16, 1 << 6, dtype=np.uint16).repeat(3).reshape(32, 32, 3)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks
    )
    pixels = decode_image(content, "x.png", None)
    assert np.abs(pixels - values / 257).max() < 1  # the library keeps the upper byte


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_largest_one_are_refused_in_one_line(mode):
    with pytest.raises(DataError, match=rf"x\.png: its pixels .*mode {mode}.* Save it with 8 or 16 bits\.$"):
        eight_bits(Image.new(mode, (2, 2)), "x.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_camera_was_held(orientation, form):
    corners = np.kron(np.array([[0, 60, 120], [180, 220, 255]], np.uint8), np.ones((8, 8), np.uint8))
    content = encoded(Image.fromarray(corners).convert("RGB"), form, exif=held(orientation))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    stored = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode_image(content, "x", None, upright=True), shown)
    np.testing.assert_array_equal(decode_image(content, "x", None), stored)
    assert (orientation == 1) == np.array_equal(shown, stored)


def test_a_picture_on_its_side_is_turned_in_a_folder_of_ones_own_and_in_no_published_data_set(tmp_path):
    """A camera that was turned by a quarter to the right says 6: the first column of the file is the top."""
    image = np.random.default_rng(0).integers(0, 256, (84, 84, 3), np.uint8)
    content = encoded(Image.fromarray(image), exif=held(6))
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "1.png").write_bytes(content)
    prepare(ImageFolder(84), "folder", tmp_path / "root", tmp_path / "out", False, silent)
    turned = load_prepared(tmp_path / "out")["test"].examples[0]
    np.testing.assert_array_equal(turned, image[::-1].transpose(1, 0, 2))
    assert "turned as EXIF says" in check(ImageFolder(), "x", tmp_path / "root", True, silent).manifest.notes["resize"]

    for split in made.SPLITS:
        made.write(tmp_path / "lists" / f"{split}.csv", f"filename,label\n{split}.png,{split}\n")
        (tmp_path / "lists" / "images").mkdir(exist_ok=True)
        different = image + np.uint8(made.SPLITS.index(split))
        (tmp_path / "lists" / "images" / f"{split}.png").write_bytes(encoded(Image.fromarray(different), exif=held(6)))
    prepare(MiniImageNet(), "mini-imagenet", tmp_path / "lists", tmp_path / "listed", True, silent)
    np.testing.assert_array_equal(load_prepared(tmp_path / "listed")["train"].examples[0], image)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x05", b"Exif\0\0II*\0" + b"\xff" * 40, b"x" * 99]
)
def test_a_picture_whose_exif_data_are_damaged_stays_as_it_is_stored(exif):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    content = encoded(Image.fromarray(image), exif=exif)
    np.testing.assert_array_equal(decode_image(content, "x", None, upright=True), image)


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_orientation_that_there_is_not_is_none(orientation):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    content = encoded(Image.fromarray(image), exif=held(orientation))
    np.testing.assert_array_equal(decode_image(content, "x", None, upright=True), image)


def test_what_is_transparent_is_shown_on_white():
    """Black ink on nothing would be black on black otherwise. Half of black on white is 127 or 128."""
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0, 0, 3], ink[0, 1, 3] = 255, 128
    expected = np.array([[0, 127], [255, 255]])
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        for mode in ("RGB", "L"):
            pixels = decode_image(encoded(Image.fromarray(ink), form, **options), "x", None, mode)
            np.testing.assert_array_equal(pixels, np.broadcast_to(expected[..., None], pixels.shape))
    grey = decode_image(encoded(Image.fromarray(ink).convert("LA")), "x", None, "L")
    np.testing.assert_array_equal(grey[..., 0], expected)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_shown_on_white(form):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([0, 0, 0, 200, 10, 20])
    pixels = decode_image(encoded(image, form, transparency=0), "x", None)
    assert pixels.tolist() == [[[255] * 3, [200, 10, 20]], [[200, 10, 20], [255] * 3]]
