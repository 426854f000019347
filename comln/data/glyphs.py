"""Glyphs: few-shot classification of characters, drawn in the typefaces that come with matplotlib.

A class is a Unicode character, an example one of its typefaces under an affine jitter, 28 x 28 pixels. Training uses
Latin letters and characters common to all scripts, validation Greek, test Cyrillic, Armenian and Georgian. Support and
query of an episode show different typefaces.

**Which characters.** Those drawn in at least `LEAST_FACES` visibly distinct typefaces. Characters that look alike (A,
Alpha and Cyrillic A; o, O and zero) would be one class under several names, in one split or in two: of each such family
one character stays, in the test split if it has one there, else in validation, else the one with the lowest code.
Pictures are compared after moving and scaling their ink to one box, since the jitter moves and scales.
"""

__all__ = ["IMAGE_SIZE", "JITTER", "load_glyphs"]

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from comln.data.augmentation import AffineJitter
from comln.data.cache import Arrays, cache_folder, cached_arrays
from comln.data.source import Split

IMAGE_SIZE = 28
"""Height and width of an example, in pixels."""
MASTER_SIZE = 44
INK_SIZE = 28
"""Characters are drawn so that in no typeface their ink is wider or higher than this, in pixels of the master."""
FONT_SIZE = 28

JITTER = AffineJitter(size=IMAGE_SIZE, pixel=40 / 28, rotation=10.0, log_scale=0.1, shear=0.1, shift=1.5)
"""How the characters are varied."""
POOL_JITTERS = 4
"""Validation and test show each typeface of a character under this many fixed jitters."""

LEAST_FACES = 10
DISTINCT_FACES = 0.1
"""Two typefaces draw a character distinctly if their pictures differ by at least this share of their ink."""
ALIKE = 0.9
"""Two characters look alike if their pictures' mean correlation over common typefaces reaches this."""
BOX_SIZE = 20

FORMAT = 1
SCRIPTS = {"LATIN": "train", "GREEK": "val", "CYRILLIC": "test", "ARMENIAN": "test", "GEORGIAN": "test"}
SPLITS = ("train", "val", "test")
LAST_CODE = 0x2BFF

COMPUTER_MODERN = ("cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmti10.ttf", "cmtt10.ttf")
ASCII_LETTERS_AND_DIGITS = frozenset(c for c in range(128) if chr(c).isalnum())


@dataclass(frozen=True)
class Character:
    """A character and its masters, one for each typeface: shape `(face, height, width)`, uint8."""

    code: int
    split: str
    faces: np.ndarray
    masters: np.ndarray


def load_glyphs(folder: Path | None = None) -> dict[str, Split]:
    """Return the splits "train", "val" and "test"; built in the user's cache on first use, in some seconds.

    - `folder`: where to keep them instead of the user's cache.
    """
    from importlib.metadata import version

    name = f"glyphs-{FORMAT}-matplotlib-{version('matplotlib')}-pillow-{version('pillow')}"
    arrays, digest = cached_arrays((folder or cache_folder()) / name, _build)
    return {split: _split(arrays, split, digest) for split in SPLITS}


def _split(arrays: Arrays, split: str, digest: str) -> Split:
    return Split(
        class_names=tuple(f"U+{code:04X} {unicodedata.name(chr(code))}" for code in arrays[f"{split}_codes"].tolist()),
        examples=arrays[f"{split}_images"],
        class_of=arrays[f"{split}_class_of"],
        group_of=arrays[f"{split}_group_of"],
        content_hash=digest,
        augmentation=JITTER if split == "train" else None,
    )


def _build() -> Arrays:
    characters = _without_look_alikes(_draw_characters())
    arrays: dict[str, np.ndarray] = {}
    for split in SPLITS:
        members = [character for character in characters if character.split == split]
        images = np.concatenate([character.masters for character in members])[..., None]
        class_of = np.repeat(np.arange(len(members)), [len(character.masters) for character in members])
        group_of = np.concatenate([character.faces for character in members])
        if split != "train":
            # A pool of fixed jitters, so that each distinct picture is embedded once.
            vary = jax.jit(JITTER)
            keys = jax.random.split(jax.random.key(0), POOL_JITTERS)
            images = np.concatenate([np.asarray(vary(images, key)) for key in keys])
            class_of, group_of = np.tile(class_of, POOL_JITTERS), np.tile(group_of, POOL_JITTERS)
        arrays[f"{split}_codes"] = np.array([character.code for character in members])
        arrays[f"{split}_images"] = images
        arrays[f"{split}_class_of"], arrays[f"{split}_group_of"] = class_of, group_of
    return arrays


def _split_of(code: int) -> str | None:
    """Return the split of a character, or `None` for one that is not used."""
    kind, name = unicodedata.category(chr(code)), unicodedata.name(chr(code), "")
    script = SCRIPTS.get(name.split(" ")[0])
    if kind[0] == "L" and "MODIFIER" not in name:
        return script
    # Numbers, punctuation and symbols are common to all scripts, unless one script claims them.
    return "train" if kind[0] in "NPS" and script in (None, "train") and "BRAILLE" not in name else None


def _draw_characters() -> list[Character]:
    """Return every character with enough distinct typefaces."""
    faces = _typefaces()
    characters = []
    for code in range(0x21, LAST_CODE + 1):
        split = _split_of(code)
        drawn_by = [index for index, (_, codes) in enumerate(faces) if code in codes]
        if split is None or len(drawn_by) < LEAST_FACES:
            continue
        pictures = _draw(chr(code), [faces[index][0] for index in drawn_by])
        distinct = _distinct(pictures)
        if len(distinct) >= LEAST_FACES:
            characters.append(Character(code, split, np.array(drawn_by)[distinct], pictures[distinct]))
    if len(characters) < 100:
        raise RuntimeError(
            "Matplotlib's fonts draw too few characters for the glyphs data set. Install matplotlib from PyPI, which "
            "brings the DejaVu and STIX fonts."
        )
    return characters


def _typefaces() -> list[tuple[Path, frozenset[int]]]:
    """Return matplotlib's text typefaces, each with the characters that it draws."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = [path.name for path in sorted(folder.glob("DejaVu*.ttf")) if "Display" not in path.name]
    names += [f"STIXGeneral{style}.ttf" for style in ("", "Bol", "BolIta", "Italic")]
    faces = [
        (folder / name, frozenset(FT2Font(folder / name).get_charmap())) for name in names if (folder / name).exists()
    ]
    # Computer Modern keeps other characters at other codes.
    return faces + [(folder / name, ASCII_LETTERS_AND_DIGITS) for name in COMPUTER_MODERN if (folder / name).exists()]


def _draw(text: str, faces: list[Path]) -> np.ndarray:
    """Return the character's masters: one size in all typefaces, the ink centred; shape `(face, height, width)`."""
    largest = max(max(_ink(text, face, FONT_SIZE).shape) for face in faces)
    size = FONT_SIZE * min(1.0, INK_SIZE / largest)
    return np.stack([_centred(_ink(text, face, size)) for face in faces])


def _ink(text: str, face: Path, size: float) -> np.ndarray:
    """Return the picture of a character, cut to its ink; shape `(height, width)`, empty where it has none."""
    from PIL import Image, ImageDraw

    font = _font(face, size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (max(1, round(right - left) + 4), max(1, round(bottom - top) + 4)))
    ImageDraw.Draw(image).text((2 - left, 2 - top), text, font=font, fill=255)
    box = image.getbbox()
    return np.asarray(image.crop(box)) if box else np.zeros((1, 1), np.uint8)


@functools.cache
def _font(face: Path, size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(face, size)


def _centred(ink: np.ndarray) -> np.ndarray:
    """Return the ink in the middle of a black master."""
    height, width = ink.shape
    master = np.zeros((MASTER_SIZE, MASTER_SIZE), np.uint8)
    top, left = (MASTER_SIZE - height) // 2, (MASTER_SIZE - width) // 2
    master[top : top + height, left : left + width] = ink
    return master


def _distinct(pictures: np.ndarray) -> list[int]:
    """Return the pictures that differ visibly from every one before them, blank ones left out."""
    chosen: list[int] = []
    ink = pictures.reshape(len(pictures), -1).astype(np.float32)
    for index, picture in enumerate(ink):
        total = picture.sum()
        if total > 0 and all(np.abs(picture - ink[other]).sum() >= DISTINCT_FACES * total for other in chosen):
            chosen.append(index)
    return chosen


def _without_look_alikes(characters: list[Character]) -> list[Character]:
    """Return the characters of which no two look alike, test characters first, then validation, then training."""
    order = sorted(characters, key=lambda character: (-SPLITS.index(character.split), character.code))
    alike = _similarity(order) >= ALIKE
    kept: list[int] = []
    for index in range(len(order)):
        if not alike[index, kept].any():
            kept.append(index)
    return sorted((order[index] for index in kept), key=lambda character: character.code)


def _similarity(characters: list[Character]) -> np.ndarray:
    """Return the mean correlation of every two characters' pictures, over the typefaces that draw both."""
    total = np.zeros((len(characters), len(characters)), np.float32)
    shared = np.zeros_like(total)
    for face in range(max(int(character.faces.max()) for character in characters) + 1):
        drawn = [index for index, character in enumerate(characters) if face in character.faces]
        boxes = np.stack([_boxed(characters[index].masters[characters[index].faces == face][0]) for index in drawn])
        total[np.ix_(drawn, drawn)] += boxes @ boxes.T
        shared[np.ix_(drawn, drawn)] += 1
    return total / np.maximum(shared, 1)


def _boxed(master: np.ndarray) -> np.ndarray:
    """Return the ink scaled to fit a box of `BOX_SIZE`, slightly blurred, centred and of norm one, flattened."""
    from PIL import Image, ImageFilter

    image = Image.fromarray(master)
    ink = image.crop(image.getbbox())
    scale = BOX_SIZE / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    box = Image.new("L", (BOX_SIZE + 4, BOX_SIZE + 4))
    box.paste(
        ink.resize((width, height), Image.Resampling.BILINEAR),
        ((BOX_SIZE + 4 - width) // 2, (BOX_SIZE + 4 - height) // 2),
    )
    values = np.asarray(box.filter(ImageFilter.GaussianBlur(0.7)), np.float32).ravel()
    values = values - values.mean()
    return values / np.linalg.norm(values)
