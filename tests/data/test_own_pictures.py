"""A user's folder becomes examples: what is in it is read or named, whatever its format, size and ink."""

import os

import numpy as np
import pytest
from PIL import Image

from comln.data.data_error import DataError
from comln.data.ink import INK_SIDE, centre_ink
from comln.data.input_form import Ink, InputForm
from comln.data.own_files import list_folder
from comln.data.own_pictures import OWN_FORMATS, InkOf, OwnPictures
from tests.data.test_safe_image import encoded

GLYPHS = InputForm((28, 28, 1), ink=Ink.CENTRED)
COLOURS = InputForm((16, 16, 3))
BAR = np.zeros((28, 28), np.uint8)
BAR[7:21, 12:16] = 255


def read(tmp_path, image, wanted, ink: InkOf = "auto", form="PNG", options=None):
    (tmp_path / "a.png").write_bytes(encoded(image, form, **(options or {})))
    return OwnPictures(wanted, ink).read(tmp_path / "a.png")


def test_a_folder_is_listed_one_deep_and_what_is_left_out_is_named(tmp_path):
    for name in (
        "cat/2.png",
        "cat/1.png",
        "owl/3.png",
        "loose.png",
        "cat/deeper/4.png",
        ".hidden/5.png",
        "cat/._1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "owl" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "owl" / "circle").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "owl")
    os.mkfifo(tmp_path / "owl" / "pipe.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "owl" / "a\x1b[2J\n.png").write_bytes(b"x")
    listed = list_folder(tmp_path)
    assert [(file.name, file.label) for file in listed.files] == [
        ("cat/1.png", "cat"),
        ("cat/2.png", "cat"),
        ("linked/3.png", "linked"),
        (r"linked/a\x1b[2J\n.png", "linked"),
        ("loose.png", None),
        ("owl/3.png", "owl"),
        (r"owl/a\x1b[2J\n.png", "owl"),
    ]
    assert listed.labels == ("cat", "empty", "linked", "owl")
    reasons = {one.name: one.reason for one in listed.skipped}
    assert reasons.keys() == {"cat/deeper"} | {
        f"{c}/{n}" for c in ("owl", "linked") for n in ("gone.png", "circle", "pipe.png")
    }
    assert "leads nowhere" in reasons["owl/gone.png"] and "not a file" in reasons["owl/pipe.png"]
    assert "folder within a class" in reasons["cat/deeper"] == reasons["owl/circle"]


def test_a_name_that_is_no_text_is_listed_and_can_be_read(tmp_path):
    name = os.fsdecode(b"\xff.png")
    (tmp_path / name).write_bytes(encoded(Image.fromarray(BAR)))
    (file,) = list_folder(tmp_path).files
    assert file.name == r"\udcff.png" and OwnPictures(GLYPHS).read(file.path).shape == (28, 28, 1)


def test_classes_that_are_named_alike_are_one_however_accents_are_stored(tmp_path):
    for name, file in (("A\u0308pfel", "1.png"), ("\u00c4pfel", "2.png"), ("Birnen", "3.png")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_bytes(b"")
    listed = list_folder(tmp_path)
    assert sorted(listed.labels) == ["Birnen", "\u00c4pfel"]
    assert [file.label for file in listed.files] == ["\u00c4pfel", "Birnen", "\u00c4pfel"]
    # Names are those of the files all the same.
    assert all((tmp_path / file.name).exists() for file in listed.files)


def test_no_folder_is_said(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        list_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "SGI", "QOI", "JPEG", "GIF", "AVIF"])
def test_every_format_gives_the_same_picture(form, tmp_path):
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this build of Pillow writes no {form}")
    gradient = np.linspace(0, 255, 16).astype(np.uint8)
    picture = np.stack([gradient[:, None].repeat(16, 1), gradient[None].repeat(16, 0), np.full((16, 16), 90)], -1)
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form in ("JPEG", "AVIF") else {}
    found = read(tmp_path, Image.fromarray(picture.astype(np.uint8)), COLOURS, form=form, options=options)
    near = {"JPEG": 12, "GIF": 12, "AVIF": 12}.get(form, 0)
    assert found.shape == (16, 16, 3) and np.abs(found.astype(int) - picture).max() <= near


def test_the_middle_square_of_a_photograph_is_taken(tmp_path):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = (200, 100, 50)
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(wide), COLOURS)[8, 8], (200, 100, 50))
    assert read(tmp_path, Image.fromarray(wide), COLOURS).min() == 50


@pytest.mark.parametrize("dark", [False, True])
def test_a_drawing_of_the_right_size_is_not_moved(dark, tmp_path):
    picture = np.roll(BAR, 3, axis=1) // 2
    found = read(tmp_path, Image.fromarray(255 - picture if dark else picture), GLYPHS)
    np.testing.assert_array_equal(found[..., 0], picture)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_a_drawing_of_another_size_ends_up_as_the_network_knows_it(dark, mode, tmp_path):
    large = np.zeros((300, 420), np.uint8)
    large[20:180, 300:340] = 255
    values = 255 - large if dark else large
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(values).convert(mode)
    np.testing.assert_array_equal(read(tmp_path, image, GLYPHS)[..., 0], BAR)


def test_grey_pencil_on_grey_paper_is_white_on_black(tmp_path):
    paper = np.full((56, 56), 180, np.uint8)
    paper[12:44, 24:32] = 120
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(paper), GLYPHS)[..., 0], BAR)


def test_ink_on_nothing_is_ink_on_white(tmp_path):
    ink = np.zeros((56, 56, 4), np.uint8)
    ink[12:44, 24:32, 3] = 255  # black where it is opaque
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(ink), GLYPHS)[..., 0], BAR)


def test_ink_can_be_said(tmp_path):
    bright = read(tmp_path, Image.fromarray(BAR), GLYPHS, ink="bright")
    np.testing.assert_array_equal(bright[..., 0], BAR)
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(BAR), GLYPHS, ink="dark")[..., 0], 255 - BAR)
    full = np.full((56, 56), 20, np.uint8)  # ink up to the edge, but for a bar
    full[12:44, 24:32] = 240
    assert (read(tmp_path, Image.fromarray(full), GLYPHS)[..., 0] == BAR).all()
    around = read(tmp_path, Image.fromarray(full), GLYPHS, ink="dark")[..., 0]
    assert around[7:21, 7:21].mean() > 200 and around[13:15, 13:15].max() < 60
    with pytest.raises(DataError, match="it is blank"):
        read(tmp_path, Image.new("L", (50, 50), 30), GLYPHS)


def test_omniglots_drawings_stay_where_they_are(tmp_path):
    dot = np.full((56, 56), 255, np.uint8)
    dot[:8, 8:16] = 0
    found = read(tmp_path, Image.fromarray(dot), InputForm((28, 28, 1), ink=Ink.BRIGHT))[..., 0]
    assert np.flatnonzero(found.max(axis=0) > 100).tolist() == [4, 5, 6, 7] and found[:4, 5].min() > 100


def test_ink_at_the_edge_and_of_one_pixel_is_centred():
    for place in ((0, 0), (49, 89), (25, 0)):
        dot = np.zeros((50, 90), np.uint8)
        dot[place] = 255
        rows = np.flatnonzero(centre_ink(dot, 28).max(axis=1))
        assert len(rows) == round(28 * INK_SIDE) and rows[0] == 7


@pytest.mark.parametrize("form", [name for name in OWN_FORMATS if name != "ICO"])
def test_a_damaged_picture_is_refused_in_one_line_wherever_it_breaks(form, tmp_path):
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this build of Pillow writes no {form}")
    rng = np.random.default_rng(0)
    whole = encoded(Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)), form)
    path, refused = tmp_path / "x", 0
    for trial in range(60):
        content = bytearray(whole[: rng.integers(0, len(whole))] if trial % 2 else whole)
        for place in rng.integers(0, max(len(content), 1), 4) if content else ():
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            assert OwnPictures(COLOURS).read(path).shape == (16, 16, 3)
        except DataError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 15


@pytest.mark.parametrize("start", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89HDF\r\n\x1a\n", b"%PDF-1.4\n", b"BUFR", b""])
def test_formats_that_start_programs_or_are_no_pictures_are_not_read(start, tmp_path):
    (tmp_path / "x.png").write_bytes(start + bytes(200) if start else b"")
    with pytest.raises(DataError, match="not a picture in one of the formats PNG, "):
        OwnPictures(COLOURS).read(tmp_path / "x.png")


def test_blocks_pass_over_what_cannot_be_read(tmp_path):
    for name in "abcde":
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.fromarray(BAR)))
    (tmp_path / "c.png").write_bytes(b"not a picture")
    pictures = OwnPictures(GLYPHS)
    blocks = list(pictures.blocks(list_folder(tmp_path).files, 3))
    assert [[file.name for file in files] for files, _ in blocks] == [["a.png", "b.png", "d.png"], ["e.png"]]
    assert [examples.shape for _, examples in blocks] == [(3, 28, 28, 1), (1, 28, 28, 1)]
    assert [one.name for one in pictures.skipped] == ["c.png"] and (pictures.dark, pictures.bright) == (0, 4)
    assert pictures.skipped[0].reason.startswith("it is not a picture")
