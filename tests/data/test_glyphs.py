import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from comln.data.glyphs import IMAGE_SIZE, LEAST_FACES, POOL_JITTERS, load_glyphs
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


def test_of_the_letters_that_are_one_picture_one_remains(splits):
    kept = {code(name) for data in splits.values() for name in data.class_names}
    for family in (
        "AΑА",
        "BΒВ",
        "EΕЕ",
        "KΚК",
        "MΜМ",
        "oοо",
        "OΟО",
        "cϲс",
        "CϹС",
        "pр",
        "xх",
        "XΧХ",
        "sѕ",
        "SЅ",
        "jј",
        "iі",
    ):
        assert len(kept & {ord(letter) for letter in family}) <= 1, family


def shape_of(picture: np.ndarray) -> np.ndarray:
    """Return the ink as a binary 16 x 16 picture, stretched to fill it: another measure than the data set's own."""
    image = Image.fromarray(picture)
    return np.asarray(image.crop(image.getbbox()).resize((16, 16), Image.Resampling.BOX)) > 96


def test_no_two_classes_are_one_picture_in_the_upright_face(splits):
    pictures, aspects, owners = [], [], []
    for split, data in splits.items():
        face = 8  # DejaVu Sans, by its place among the sorted files
        for c in range(len(data.class_names)):
            found = np.flatnonzero((data.class_of == c) & (data.group_of == face))
            if split == "train" and len(found):
                master = data.examples[found[0], ..., 0]
                box = Image.fromarray(master).getbbox()
                pictures.append(shape_of(master).ravel())
                assert box is not None
                aspects.append((box[2] - box[0]) / (box[3] - box[1]))
                owners.append(data.class_names[c])
    pictures, aspects = np.array(pictures), np.array(aspects)
    different = (pictures[:, None] ^ pictures[None]).mean(-1)
    # Thin strokes stretch to the same black square, whatever their direction; only like shapes are compared.
    like = np.abs(np.log(aspects[:, None] / aspects[None])) < 0.1
    np.fill_diagonal(different, 1.0)
    pairs = np.argwhere(like & (different < 0.01) & (pictures.mean(-1) < 0.9)[:, None])
    assert not len(pairs), [(owners[i], owners[j]) for i, j in pairs[:5]]


def test_pool_pictures_show_whole_glyphs(splits):
    for split in ("val", "test"):
        pictures = splits[split].examples
        assert pictures.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 1) and pictures.dtype == np.uint8
        assert pictures.reshape(len(pictures), -1).max(1).min() > 60
        border = np.concatenate([pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], axis=1)
        assert (border.max((1, 2)) > 128).mean() < 0.01


def test_training_pictures_are_jittered_to_the_size_of_the_pool(splits):
    train = splits["train"]
    varied = np.asarray(train.augmentation(jnp.asarray(train.examples[:64]), jax.random.key(3)))
    assert varied.shape == (64, IMAGE_SIZE, IMAGE_SIZE, 1) and varied.dtype == np.uint8
    border = np.concatenate([varied[:, 0], varied[:, -1], varied[:, :, 0], varied[:, :, -1]], axis=1)
    assert (border.max((1, 2)) > 128).mean() < 0.05


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
