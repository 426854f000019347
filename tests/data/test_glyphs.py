import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from comln.data import glyphs
from comln.data.glyphs import IMAGE_SIZE, INK_SIZE, JITTER, LEAST_FACES, MASTER_SIZE, POOL_JITTERS, load_glyphs
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import content_hash


@pytest.fixture(scope="module")
def splits():
    return load_glyphs()


def code(name: str) -> int:
    return int(name.split(" ")[0].removeprefix("U+"), 16)


def test_splits_are_of_their_scripts_and_share_no_class(splits):
    names = {split: set(data.class_names) for split, data in splits.items()}
    assert len(set.union(*names.values())) == sum(map(len, names.values()))
    assert all("GREEK" in name for name in names["val"])
    assert all(any(s in name for s in ("CYRILLIC", "ARMENIAN", "GEORGIAN")) for name in names["test"])
    assert not any(s in n for n in names["train"] for s in ("GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"))
    assert len(names["train"]) > 300 and len(names["val"]) > 80 and len(names["test"]) > 150


def test_every_class_has_its_distinct_faces(splits):
    for split, data in splits.items():
        variants = 1 if split == "train" else POOL_JITTERS
        for c in range(len(data.class_names)):
            faces = data.group_of[data.class_of == c]
            assert len(np.unique(faces)) >= LEAST_FACES
            assert len(faces) == variants * len(np.unique(faces))


def test_faces_of_a_class_differ(splits):
    data = splits["train"]
    for c in range(len(data.class_names)):
        masters = data.examples[data.class_of == c]
        assert len(np.unique(masters.reshape(len(masters), -1), axis=0)) == len(masters), data.class_names[c]


@pytest.mark.parametrize(
    "family",
    # Latin, Greek and Cyrillic letters, capitals and small ones, digits.
    "AΑА BΒВ EΕЕ HΗН KΚК MΜМ pρрPΡР xхXХ cϲсCϹС sѕSЅ Vv wWԜԝ zZΖ 0OoΟοОоՕօ jјϳ iі 3Зз JЈȷ Жж ГгΓ κк Уyу -‐ 2²".split(),
)
def test_of_characters_of_one_shape_one_remains(splits, family):
    kept = {code(name) for data in splits.values() for name in data.class_names}
    assert len(kept & {ord(letter) for letter in family}) <= 1


def test_letters_told_apart_by_a_stroke_remain(splits):
    kept = {code(name) for name in splits["test"].class_names}
    for pair in ("НП", "ИН", "ШЩ", "ЕЁ", "ЄС", "ЦЏ", "ղդ", "ვე"):
        assert {ord(letter) for letter in pair} <= kept, pair


def drawn(face: str, codes: list[int]) -> np.ndarray:
    """Return large characters, scaled to one box; another measure than the data set's own. Shape `(code, y, x)`."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face, 64)
    pictures = []
    for number in codes:
        page = Image.new("L", (160, 160))
        ImageDraw.Draw(page).text((40, 20), chr(number), font=font, fill=255)
        ink = page.crop(page.getbbox())
        width, height = (max(1, round(22 * side / max(ink.size))) for side in ink.size)
        box = Image.new("L", (26, 26))
        box.paste(ink.resize((width, height), Image.Resampling.BOX), ((26 - width) // 2, (26 - height) // 2))
        pictures.append(np.asarray(box, np.float32))
    return np.stack(pictures)


def unit(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_no_two_classes_are_one_picture_up_to_size_and_shift(splits):
    owners = np.array([split for split, data in splits.items() for _ in data.class_names])
    codes = [code(name) for data in splits.values() for name in data.class_names]
    total = np.zeros((len(codes), len(codes)), np.float32)
    faces = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSans-Bold.ttf")
    for face in faces:
        pictures = drawn(face, codes)
        shifted = [unit(np.roll(pictures, (y, x), (1, 2))) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        total += np.max([unit(pictures) @ other.T for other in shifted], axis=0)
    correlation = np.maximum(total, total.T) / len(faces)
    np.fill_diagonal(correlation, 0)
    # The closest pairs: Т and Ŧ between splits (0.93), a bracket and the same with a quill inside one (0.985).
    for alike, limit in ((owners[:, None] != owners[None], 0.95), (owners[:, None] == owners[None], 0.99)):
        pairs = np.argwhere(alike & (correlation > limit))
        assert not len(pairs), [(chr(codes[i]), chr(codes[j])) for i, j in pairs[:5]]


def border(pictures: np.ndarray) -> np.ndarray:
    """Return the brightest pixel on each picture's border."""
    edges = [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]]
    return np.concatenate(edges, axis=1).max((1, 2))


def test_pool_pictures_show_whole_glyphs(splits):
    for split in ("val", "test"):
        pictures = splits[split].examples
        assert pictures.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 1) and pictures.dtype == np.uint8
        assert pictures.reshape(len(pictures), -1).max(1).min() > 60
        assert border(pictures).max() < 128


@pytest.mark.parametrize("corner", list(itertools.product((-1.0, 1.0), repeat=5)), ids=str)
def test_no_jitter_cuts_even_a_full_square(corner):
    square = np.zeros((MASTER_SIZE + 1, MASTER_SIZE + 1, 1), np.uint8)
    margin = (MASTER_SIZE + 1 - INK_SIZE) // 2
    square[margin : margin + INK_SIZE, margin : margin + INK_SIZE] = 255
    varied = np.asarray(JITTER._vary(jnp.asarray(square), jnp.asarray(corner, jnp.float32)))
    assert border(varied[None]).max() < 128  # at most half of the outermost pixel


def test_training_pictures_are_jittered_to_the_size_of_the_pool(splits):
    train = splits["train"]
    varied = np.asarray(train.augmentation(jnp.asarray(train.examples[:64]), jax.random.key(3)))
    assert varied.shape == (64, IMAGE_SIZE, IMAGE_SIZE, 1) and varied.dtype == np.uint8
    assert border(varied).max() < 128


def test_support_and_query_show_different_faces(splits):
    for split, data in splits.items():
        episode = Sampler(data, EpisodeShape(5, 5, 15)).draw(0, 0)
        for way in range(5):
            assert not set(data.group_of[episode.support[way]]) & set(data.group_of[episode.query[way]]), split


def test_a_smaller_set_is_asked_for_more_classes_than_it_has(splits):
    with pytest.raises(ValueError, match="but this split has"):
        Sampler(splits["test"], EpisodeShape(1000, 1, 1))


@pytest.mark.slow
def test_building_again_gives_the_same_content(splits, tmp_path):
    assert content_hash(load_glyphs(tmp_path)) == content_hash(splits)


def test_fonts_that_draw_too_little_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "_draw_characters", lambda: [])
    monkeypatch.setattr(glyphs, "_without_look_alikes", lambda characters: characters)
    with pytest.raises(ValueError, match=r"'train' .* needs 20 characters, but matplotlib's fonts draw 0. Install"):
        load_glyphs(tmp_path)
    assert not list(tmp_path.iterdir())
