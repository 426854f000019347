"""What is checked of a data set, what is written, and what the rest of the program makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from comln.data.batches import make_batch
from comln.data.data_error import DataError
from comln.data.prepare import HEAD, check, prepare
from comln.data.prepared import PreparedData, PreparedEmbeddings, load_prepared, read_manifest
from comln.data.safe_archive import unpack
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import content_hash
from comln.data.sources.cifar import CIFARFS
from comln.data.sources.embeddings import Embeddings
from comln.data.sources.image_folder import ImageFolder
from comln.data.sources.leo_embeddings import LEOMiniImageNet
from comln.data.sources.mini_imagenet import MiniImageNet
from comln.data.sources.omniglot import Omniglot
from tests.data import fabricated as made
from tests.data.fabricated import SPLITS, Tiny


def silent(split, done, total):
    """No progress."""


def error_of(source, root, allow_partial=True):
    with pytest.raises(DataError) as caught:
        check(source, "tiny", root, allow_partial, silent)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tiny_folder(tmp_path):
    """Return a folder of pictures, 3 classes of 4 in each split, and the images."""
    tiny = Tiny(8, classes=3, each=4)
    for split in SPLITS:
        tiny.pictures(split, tmp_path / "root" / split)
    return tmp_path / "root", tiny


def test_counts_are_those_of_the_data_set(tmp_path):
    made.class_dictionaries(Tiny(), tmp_path)
    message = error_of(MiniImageNet(), tmp_path, allow_partial=False)
    assert "'train' should have 64 classes and 38400 examples, 600 of each class, but has 2 classes and 6" in message
    assert "--allow-partial" in message
    remarks = check(MiniImageNet(), "mini-imagenet", tmp_path, True, silent).manifest.remarks
    assert len(remarks) == 3 and "the split 'test' should have 20 classes" in remarks[2]


def test_more_classes_than_there_are_is_another_data_set(tmp_path):
    """As copies of miniImageNet that divide the images of all 100 classes."""
    tiny = Tiny(8, classes=65, each=1)
    made.parquet(tiny, tmp_path, named=False)
    assert "it is another data set or split" in error_of(MiniImageNet(image_size=8), tmp_path)


def test_splits_that_share_a_class_are_refused(tmp_path):
    tiny = Tiny(8)
    tiny.names = {split: ["n01", "n02"] for split in SPLITS}
    made.parquet(tiny, tmp_path)
    message = error_of(MiniImageNet(image_size=8), tmp_path)
    assert "the class 'n01' is in the splits 'train' and 'val'" in message and "divide classes, not images" in message


def test_splits_share_a_class_however_its_accents_are_stored(tiny_folder):
    root, _ = tiny_folder
    for split, name in (("train", "A\u0308pfel"), ("test", "\u00c4pfel")):
        next((root / split).iterdir()).rename(root / split / name)
    assert "the class '\u00c4pfel' is in the splits 'train' and 'test'" in error_of(ImageFolder(8), root)


def test_splits_that_share_images_are_refused_but_for_one_in_a_thousand(tiny_folder, tmp_path):
    root, _ = tiny_folder
    source, target = next(root.glob("train/*/*.png")), next(root.glob("test/*/*.png"))
    target.write_bytes(source.read_bytes())
    assert "1 of 12 examples are the same in the splits 'train' and 'test'" in error_of(ImageFolder(8), root)
    rows = {split: np.random.default_rng(i).standard_normal((1200, 2)) for i, split in enumerate(("train", "test"))}
    rows["test"][7] = rows["train"][9]
    (tmp_path / "e").mkdir()
    for split, values in rows.items():
        np.savez(tmp_path / "e" / f"{split}.npz", embeddings=values, labels=np.array([split] * 1200))
    remarks = check(Embeddings(), "embeddings", tmp_path / "e", False, silent).manifest.remarks
    assert remarks == ["1 of 1200 examples are the same in the splits 'train' and 'test'; as few as that are let pass."]


def test_check_writes_nothing(tiny_folder):
    root, _ = tiny_folder
    before = sorted(root.rglob("*"))
    check(ImageFolder(8), "folder", root, False, silent)
    assert sorted(root.rglob("*")) == before


def test_the_manifest_says_what_it_was_made_from(tiny_folder, tmp_path):
    root, tiny = tiny_folder
    prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.settings == {"image_size": "8"} and manifest.example_shape == (8, 8, 3)
    assert manifest.sources[0]["path"] == "train/n000" and manifest.sources[0]["files"] == 4
    np.testing.assert_allclose(manifest.mean, tiny.images["train"].mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(manifest.std, tiny.images["train"].std((0, 1, 2)) / 255, rtol=1e-12)
    assert manifest.normalisation == "measured on train"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["manifest.json", *(f"{split}.{ending}" for split in SPLITS for ending in ("json", "npy"))]
    )


def test_the_manifest_says_that_constants_are_of_test_classes_where_there_are_no_others(tmp_path):
    tiny = Tiny(8)
    tiny.pictures("test", tmp_path / "root")
    manifest = check(ImageFolder(8), "folder", tmp_path / "root", False, silent).manifest
    assert list(manifest.splits) == ["test"] and manifest.normalisation == "measured on test"
    np.testing.assert_allclose(manifest.mean, tiny.images["test"].mean((0, 1, 2)) / 255, rtol=1e-12)


def test_the_content_hash_depends_on_the_content_alone(tmp_path):
    tiny, hashes = Tiny(), []
    for i, write in enumerate((made.class_dictionaries, made.labelled_pickles, made.listed_images)):
        write(tiny, tmp_path / f"root{i}")
        prepare(MiniImageNet(), "mini-imagenet", tmp_path / f"root{i}", tmp_path / f"out{i}", True, silent)
        hashes.append(content_hash(load_prepared(tmp_path / f"out{i}")))
    tiny.images["test"][0, 0, 0, 0] ^= 1
    made.class_dictionaries(tiny, tmp_path / "changed")
    prepare(MiniImageNet(), "mini-imagenet", tmp_path / "changed", tmp_path / "out", True, silent)
    assert len(set(hashes)) == 1 and content_hash(load_prepared(tmp_path / "out")) != hashes[0]


def test_an_interrupted_preparation_goes_on_where_it_was(tiny_folder, tmp_path):
    root, tiny = tiny_folder

    def interrupt(split, done, total):
        if split == "val":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, interrupt)
    beside = tmp_path / "out" / ".comln-unfinished"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [beside.name]
    assert sorted(path.name for path in beside.iterdir()) == ["train.json", "train.npy"]
    with pytest.raises(DataError, match="no prepared data set here"):
        load_prepared(tmp_path / "out")
    assert prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent).kept == ("train",)
    np.testing.assert_array_equal(load_prepared(tmp_path / "out")["train"].examples, tiny.images["train"])
    assert not beside.exists()


def test_a_failed_preparation_leaves_what_was_there(tiny_folder, tmp_path):
    root, tiny = tiny_folder
    prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    min(root.glob("train/*/*.png")).write_bytes(made.png(255 - tiny.images["train"][0]))
    damaged = next(root.glob("test/*/*.png"))
    good = damaged.read_bytes()
    damaged.write_bytes(good[:90])
    for _ in range(2):
        with pytest.raises(DataError, match="damaged"):
            prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()} == before
        np.testing.assert_array_equal(load_prepared(tmp_path / "out")["train"].examples, tiny.images["train"])
    damaged.write_bytes(good)
    assert prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent).kept == ("train", "val")
    expected = np.concatenate([255 - tiny.images["train"][:1], tiny.images["train"][1:]])
    np.testing.assert_array_equal(load_prepared(tmp_path / "out")["train"].examples, expected)


@pytest.mark.parametrize("renaming", range(7, 14))  # six write the new splits, six exchange them, one the manifest
def test_an_interruption_while_splits_are_exchanged_is_made_good(renaming, tiny_folder, tmp_path, monkeypatch):
    """At no moment are new examples read under an old manifest, or the other way round."""
    import os

    root, tiny = tiny_folder
    prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    for split in SPLITS:
        min(root.glob(f"{split}/*/*.png")).write_bytes(made.png(255 - tiny.images[split][0]))
    replace, left = os.replace, [renaming]

    def interrupted(source, target):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    with pytest.raises(DataError, match="no prepared data set here"):
        load_prepared(tmp_path / "out")
    prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    np.testing.assert_array_equal(load_prepared(tmp_path / "out")["test"].examples[0], 255 - tiny.images["test"][0])


@pytest.mark.parametrize("replaced", ["a picture", "a picture in a folder of folders", "a file"])
def test_files_that_were_replaced_by_others_of_the_same_size_are_read_again(replaced, tmp_path):
    import os

    tiny, root, source = Tiny(28, channels=1), tmp_path / "root", ImageFolder(28)
    if replaced == "a file":
        tiny, source = Tiny(84, each=30), MiniImageNet()
        made.class_dictionaries(tiny, root, protocol=4)
        path = root / "mini-imagenet-cache-test.pkl"
    elif replaced == "a picture":
        for split in SPLITS:
            tiny.pictures(split, root / split)
        path = min(root.glob("test/*/*.png"))
    else:
        source = Omniglot()
        for split in SPLITS:
            tiny.pictures(split, root / "data" / "Latin")
            lines = [f"Latin/{name}/rot000" for name in tiny.names[split]]
            made.write(root / "splits" / "vinyals" / f"{split}.txt", "\n".join(lines))
        path = min(root.glob(f"data/Latin/{tiny.names['test'][0]}/*.png"))
    prepare(source, "tiny", root, tmp_path / "out", True, silent)
    status, content = path.stat(), bytearray(path.read_bytes())
    if replaced == "a file":
        place = bytes(content).index(tiny.images["test"][-1].tobytes()[:100])
        assert place > HEAD  # beyond what the digest of the file's beginning would notice
        content[place] ^= 1
    else:
        content = made.png(255 - tiny.images["test"][0])
    before = load_prepared(tmp_path / "out")["test"].content_hash
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert path.stat().st_size == status.st_size
    assert "test" not in prepare(source, "tiny", root, tmp_path / "out", True, silent).kept
    assert load_prepared(tmp_path / "out")["test"].content_hash != before


def test_an_archive_that_is_unpacked_again_holds_the_same_files(tiny_folder, tmp_path):
    import shutil

    archive = Path(shutil.make_archive(str(tmp_path / "pictures"), "zip", tiny_folder[0]))
    for kept in ((), SPLITS):
        unpack(archive, tmp_path / f"unpacked{len(kept)}")
        done = prepare(ImageFolder(8), "folder", tmp_path / f"unpacked{len(kept)}", tmp_path / "out", False, silent)
        assert done.kept == kept


def test_other_settings_or_files_are_prepared_again(tiny_folder, tmp_path):
    root, _ = tiny_folder
    prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    assert prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent).kept == SPLITS
    next(root.glob("val/*/*.png")).unlink()
    assert prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent).kept == ("train", "test")
    assert prepare(ImageFolder(4), "folder", root, tmp_path / "out", False, silent).kept == ()
    assert load_prepared(tmp_path / "out")["val"].examples.shape == (11, 4, 4, 3)


def test_somebody_elses_files_are_left_alone(tiny_folder, tmp_path):
    root, _ = tiny_folder
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "val.npy").write_text("mine")
    with pytest.raises(DataError, match=r"a val.npy that comln did not write"):
        prepare(ImageFolder(8), "folder", root, tmp_path / "out", False, silent)
    assert (tmp_path / "out" / "val.npy").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"name": "my app", "version": 1}', "[1, 2]", "{", ""])
def test_somebody_elses_manifest_is_left_alone(content, tiny_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"out: it holds a manifest.json that comln did not write"):
        prepare(ImageFolder(8), "folder", tiny_folder[0], tmp_path / "out", False, silent)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    assert (tmp_path / "out" / "manifest.json").read_text() == content


@pytest.mark.parametrize("damage", ["shorter", "other list", "no array", "other version", "no json", "other shape"])
def test_a_damaged_folder_is_refused(damage, tiny_folder, tmp_path):
    root, out = tiny_folder[0], tmp_path / "out"
    prepare(ImageFolder(8), "folder", root, out, False, silent)
    manifest = json.loads((out / "manifest.json").read_text())
    match damage:
        case "shorter":
            (out / "train.npy").write_bytes((out / "train.npy").read_bytes()[:-1])
        case "other list":
            (out / "val.json").write_text("{}")
        case "no array":
            (out / "test.npy").unlink()
        case "other version":
            (out / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
        case "no json":
            (out / "manifest.json").write_text("{")
        case "other shape":
            (out / "manifest.json").write_text(json.dumps({**manifest, "example_shape": [9, 9, 3]}))
    with pytest.raises(DataError, match="Run `comln data prepare` again"):
        load_prepared(out)


def test_prepared_data_says_how_to_make_it_and_what_does_not_fit(tiny_folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"Run `comln data prepare folder ROOT --out .*out`"):
        PreparedData("folder", out).load()
    prepare(ImageFolder(8), "folder", tiny_folder[0], out, False, silent)
    with pytest.raises(DataError, match=r"of shape \(8, 8, 3\), but the experiment is set for \(84, 84, 3\)"):
        PreparedData("folder", out).load()
    with pytest.raises(DataError, match=r"set for \(640,\)"):
        PreparedEmbeddings("folder", out).load()
    assert list(PreparedData("folder", out, image_size=8).load()) == list(SPLITS)


def test_tasks_come_from_unequal_classes_and_classes_too_small_are_named(tmp_path):
    rng, labels = np.random.default_rng(0), np.array(["a"] * 9 + ["b"] * 4 + ["c"] * 20)
    rng.shuffle(labels)
    np.savez(tmp_path / "embeddings.npz", embeddings=rng.standard_normal((33, 5)), labels=labels)
    prepare(Embeddings(), "embeddings", tmp_path, tmp_path / "out", False, silent)
    split = load_prepared(tmp_path / "out")["test"]
    sampler = Sampler(split, EpisodeShape(3, 1, 3))
    for index in range(20):
        episode = sampler.draw(0, index)
        for way in range(3):
            members = np.concatenate([episode.support[way], episode.query[way]])
            assert len(set(members)) == 4 and set(split.class_of[members]) == {episode.classes[way]}
    batch = make_batch(sampler, 0, range(2))
    assert batch.support.dtype == np.float32 and batch.support.shape == (2, 3, 1, 5)
    with pytest.raises(ValueError, match="class 'b' can give at most 3"):
        Sampler(split, EpisodeShape(3, 1, 4))


@pytest.mark.parametrize("change", ["nan", "infinite", "zero", "width", "type", "key", "twice", "keys short"])
def test_wrong_embeddings_are_refused(change, tmp_path):
    def wrong(embeddings, keys):
        match change:
            case "nan":
                embeddings[1, 3] = np.nan
            case "infinite":
                embeddings[1, 3] = -np.inf
            case "zero":
                embeddings[1] = 0
            case "width":
                embeddings = embeddings[:, :10]
            case "type":
                embeddings = embeddings.astype(np.int32)
            case "key":
                keys[1] = "1-n01-n02_1"
            case "twice":
                keys[1] = keys[0]
            case "keys short":
                keys = keys[:3]
        return embeddings, keys

    made.leo(tmp_path, change=wrong)
    reasons = {"nan": "embedding 1 has a number that is not finite", "infinite": "not finite", "zero": "is zero"}
    reasons |= {"width": "shape (images, 640)", "type": "floating-point", "key": "is not like", "twice": "occurs twice"}
    message = error_of(LEOMiniImageNet(normalise="l2"), tmp_path)
    assert {**reasons, "keys short": "4 embeddings, but 3 keys"}[change] in message
    assert "train_embeddings.pkl" in message


WRONG = {
    "no dictionary": ([1, 2], "should hold a dictionary"),
    "key": ({"data": np.zeros((2, 32, 32, 3), np.uint8)}, "lacks labels"),
    "type": ({"data": np.zeros((2, 32, 32, 3), np.float32), "labels": [0, 1]}, "it holds float32"),
    "shape": ({"data": np.zeros((2, 3, 32, 32), np.uint8), "labels": [0, 1]}, "of shape (2, 3, 32, 32)"),
    "no array": ({"data": [1], "labels": [0]}, "it holds a list"),
    "counts": ({"data": np.zeros((2, 32, 32, 3), np.uint8), "labels": [0, 1, 2]}, "2 images, but 3 labels"),
    "texts": ({"data": np.zeros((2, 32, 32, 3), np.uint8), "labels": ["0", "1"]}, "not whole numbers"),
    "huge": ({"data": np.zeros((2, 32, 32, 3), np.uint8), "labels": [2**80, 1]}, "not whole numbers of 64 bits"),
    "empty": ({"data": np.zeros((0, 32, 32, 3), np.uint8), "labels": []}, "has no examples"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_pickles_are_refused(change, tmp_path):
    content, reason = WRONG[change]
    for split in SPLITS:
        made.dump(tmp_path / f"CIFAR_FS_{split}.pickle", content, protocol=4)
    assert reason in error_of(CIFARFS(), tmp_path)


@pytest.mark.parametrize("rows", [{"a": [0, 1, 2], "b": [3]}, {"a": [0, 0, 1], "b": [2, 3, 4, 5]}, {"a": [6]}, {}])
def test_wrong_rows_of_classes_are_refused(rows, tmp_path):
    for split in SPLITS:
        content = {"image_data": np.zeros((6, 84, 84, 3), np.uint8), "class_dict": rows}
        made.dump(tmp_path / f"mini-imagenet-cache-{split}.pkl", content)
    message = error_of(MiniImageNet(), tmp_path)
    assert "belongs to" in message or "is not there" in message or "should have a dictionary" in message


def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    import sys

    made.write(tmp_path / "train.parquet", "")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for split in SPLITS:
        made.write(tmp_path / f"{split}.parquet", "")
    assert "pip install 'comln[parquet]'" in error_of(Embeddings(), tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for split in SPLITS:
        made.write(tmp_path / f"{split}_data.hdf5", "")
        made.write(tmp_path / f"{split}_labels.json", [])
    assert "pip install 'comln[hdf5]'" in error_of(MiniImageNet(), tmp_path)
