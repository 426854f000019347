r"""Glyphs: few-shot classification of characters, drawn in the typefaces that come with matplotlib.

A class is a Unicode character, an example one of its typefaces under an affine jitter, 28 x 28 pixels. Training uses
Latin letters and characters common to all scripts, validation Greek, test Cyrillic, Armenian and Georgian. Support and
query of an episode show different typefaces.

**Which characters.** Those drawn in at least `LEAST_FACES` visibly distinct typefaces. Characters that look alike (A,
Alpha and Cyrillic A; o, O and zero) would be one class under several names, in one split or in two: of each such family
one character stays, in the test split if it has one there, else in validation, else the one with the lowest code.

**What looks alike.** The jitter moves and scales, so ink is first moved and scaled to one box: that makes o and O one
picture. In one typeface, the mismatch of two pictures is the mean over one's ink of $\min(\max(d - 1, 0), 3)^2$, the
larger of both directions, where $d$ is the distance to the other's ink in pixels of that box. It forgives strokes that
are a pixel thicker or bent, and counts a bar or an accent that is elsewhere. Two characters look alike if in at least
half of their common typefaces the mismatch is below `ALIKE`. Seen on contact sheets: characters of one shape (0 and O,
V and v) have a median mismatch below 0.1, different letters like Cyrillic Н and П above 0.12; in between lie close
accents. Turned pictures are not compared, since the jitter turns by a few degrees only.
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
MASTER_SIZE = 28
INK_SIZE = 25
"""Characters are drawn so that in no typeface their ink is wider or higher than this, in pixels of the master: even a
full square then stays inside the picture under every jitter. Beyond the master all is black, so it needs no margin."""
FONT_SIZE = 28.0

JITTER = AffineJitter(size=IMAGE_SIZE, pixel=40 / 28, rotation=10.0, log_scale=0.1, shear=0.1, shift=1.5)
"""How the characters are varied."""
POOL_JITTERS = 4
"""Validation and test show each typeface of a character under this many fixed jitters."""

LEAST_FACES = 10
DISTINCT_FACES = 0.1
"""Two typefaces draw a character distinctly if their pictures differ by at least this share of their ink."""
ALIKE = 0.1
"""In one typeface two characters look alike if their mismatch is below this; see the top of this file."""
BOX_SIZE, BOX_FRAME, FARTHEST = 24, 4, 3

LEAST_CLASSES = 20
FORMAT = 2
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

    made_with = {name: version(name) for name in ("matplotlib", "pillow")}
    name = "-".join(["glyphs", str(FORMAT), *(f"{library}-{number}" for library, number in made_with.items())])
    arrays, digest = cached_arrays((folder or cache_folder()) / name, _build, {"format": str(FORMAT), **made_with})
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
        if len(members) < LEAST_CLASSES:
            raise ValueError(
                f"The split {split!r} of the glyphs data set needs {LEAST_CLASSES} characters, but matplotlib's fonts "
                f"draw {len(members)}. Install matplotlib from PyPI, which brings the DejaVu and STIX fonts."
            )
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
    size, largest = FONT_SIZE, _largest(text, faces, FONT_SIZE)
    while largest > INK_SIZE:
        # Hinting rounds the ink up to whole pixels: where shrinking to fit is not enough, shrink on.
        size *= min(INK_SIZE / largest, (INK_SIZE - 1) / INK_SIZE)
        largest = _largest(text, faces, size)
    return np.stack([_centred(_ink(text, face, size)) for face in faces])


def _largest(text: str, faces: list[Path], size: float) -> int:
    """Return the largest width or height of a character's ink in any typeface, in pixels."""
    boxes = [_font(face, size).getbbox(text) for face in faces]
    return max(max(right - left, bottom - top) for left, top, right, bottom in boxes)


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
    ink = pictures.reshape(len(pictures), -1).astype(np.float32)
    total = ink.sum(1)
    differ = np.abs(ink[:, None] - ink[None]).sum(-1) >= DISTINCT_FACES * np.maximum(total, 1)[:, None]
    chosen: list[int] = []
    for index in np.flatnonzero(total):
        if differ[index, chosen].all():
            chosen.append(int(index))
    return chosen


def _without_look_alikes(characters: list[Character]) -> list[Character]:
    """Return the characters of which no two look alike, test characters first, then validation, then training."""
    order = sorted(characters, key=lambda character: (-SPLITS.index(character.split), character.code))
    alike = _alike(order)
    kept: list[int] = []
    for index in range(len(order)):
        if not alike[index, kept].any():
            kept.append(index)
    return sorted((order[index] for index in kept), key=lambda character: character.code)


def _alike(characters: list[Character]) -> np.ndarray:
    """Return which characters look alike, shape `(character, character)`."""
    votes = np.zeros((len(characters), len(characters)), np.int32)
    shared = np.zeros_like(votes)
    for face in range(max(int(character.faces.max()) for character in characters) + 1):
        drawn = [index for index, character in enumerate(characters) if face in character.faces]
        if drawn:
            boxes = np.stack([_boxed(characters[index].masters[characters[index].faces == face][0]) for index in drawn])
            votes[np.ix_(drawn, drawn)] += _mismatch(boxes) < ALIKE
            shared[np.ix_(drawn, drawn)] += 1
    return (shared > 0) & (2 * votes >= shared)


def _mismatch(boxes: np.ndarray) -> np.ndarray:
    """Return how badly every two pictures' ink fits, shape `(picture, picture)`; `boxes`: bool, `(picture, y, x)`."""
    reach = range(-FARTHEST, FARTHEST + 1)  # one farther costs the most
    most = FARTHEST**2
    near = np.zeros(boxes.shape, np.uint8)  # 255 at and beside ink, falling to 0 where it is farthest
    for down in reach:
        for right in reach:
            cost = min(max(float(np.hypot(down, right)) - 1, 0), FARTHEST) ** 2
            np.maximum(near, np.roll(boxes, (down, right), (1, 2)) * np.uint8(255 * (1 - cost / most)), out=near)
    far = most * (1 - near.reshape(len(boxes), -1).astype(np.float32) / 255)
    ink = boxes.reshape(len(boxes), -1).astype(np.float32)
    one_way = ink @ far.T / ink.sum(1)[:, None]
    return np.maximum(one_way, one_way.T)


def _boxed(master: np.ndarray) -> np.ndarray:
    """Return where the ink is once scaled to a box: bool, its longer side `BOX_SIZE`, framed by `BOX_FRAME`.

    The ratio of the sides is drawn halfway to a square: an O is narrower than an o in some typefaces.
    """
    from PIL import Image

    image = Image.fromarray(master)
    ink = image.crop(image.getbbox())
    width, height = (max(1, round(BOX_SIZE * (side / max(ink.size)) ** 0.5)) for side in ink.size)
    framed = BOX_SIZE + 2 * BOX_FRAME
    box = Image.new("L", (framed, framed))
    box.paste(ink.resize((width, height), Image.Resampling.BILINEAR), ((framed - width) // 2, (framed - height) // 2))
    values = np.asarray(box)
    return values > 0.38 * values.max()
