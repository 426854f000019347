"""Every layout of a data set loads to the same classes and the same arrays."""

import json

import numpy as np
import pytest

from comln.data.data_error import DataError
from comln.data.prepare import check, prepare
from comln.data.prepared import load_prepared, read_manifest
from comln.data.sources.cifar import CIFARFS, FC100
from comln.data.sources.cub import CUB
from comln.data.sources.embeddings import Embeddings
from comln.data.sources.image_folder import ImageFolder
from comln.data.sources.leo_embeddings import LEOMiniImageNet, LEOTieredImageNet
from comln.data.sources.mini_imagenet import MiniImageNet
from comln.data.sources.omniglot import Omniglot
from comln.data.sources.tiered_imagenet import TieredImageNet
from tests.data import fabricated as made
from tests.data.fabricated import SPLITS, Tiny


def silent(split, done, total):
    """No progress."""


def load(source, root, out, name="tiny", partial=True):
    """Prepare what is in `root` and read it back."""
    prepare(source, name, root, out, partial, silent)
    return load_prepared(out)


def assert_same(splits, tiny, names=None):
    assert list(splits) == list(SPLITS)
    for split in SPLITS:
        np.testing.assert_array_equal(splits[split].examples, tiny.images[split])
        assert splits[split].examples.dtype == np.uint8 and isinstance(splits[split].examples, np.memmap)
        np.testing.assert_array_equal(splits[split].class_of, tiny.class_of)
        assert list(splits[split].class_names) == (names or tiny.names)[split]


def numbered(tiny, start=(0, 0, 0), width=0):
    return {
        split: [f"{split} {first + c:0{width}d}" for c in range(tiny.classes)]
        for first, split in zip(start, SPLITS, strict=True)
    }


MINI = {
    "labelled, protocol 2": made.labelled_pickles,
    "labelled, protocol 4": lambda tiny, root: made.labelled_pickles(tiny, root, protocol=4),
    "labelled, protocol 5": lambda tiny, root: made.labelled_pickles(tiny, root, protocol=5),
    "labelled, protocol 0": lambda tiny, root: made.labelled_pickles(tiny, root, protocol=0),
    "dictionaries": made.class_dictionaries,
    "dictionaries of learn2learn": lambda tiny, root: made.class_dictionaries(tiny, root, "validation"),
    "lists of images": made.listed_images,
    "hdf5": lambda tiny, root: made.hdf5(tiny, root / "miniimagenet"),
    "folders": lambda tiny, root: made.listed_folders(tiny, root / "miniimagenet"),
    "parquet": made.parquet,
}


@pytest.mark.parametrize("layout", MINI)
def test_every_layout_of_mini_imagenet_is_the_same(layout, tmp_path):
    tiny = Tiny()
    MINI[layout](tiny, tmp_path / "root")
    assert_same(load(MiniImageNet(), tmp_path / "root", tmp_path / "out"), tiny)


TIERED = {
    "npz": lambda tiny, root: made.tiered_npz(tiny, root),
    "npz, compressed": lambda tiny, root: made.tiered_npz(tiny, root, "dict", compressed=True),
    "png": lambda tiny, root: made.tiered_png(tiny, root / "tiered-imagenet", "dict"),
    "hdf5": lambda tiny, root: made.hdf5(tiny, root / "tieredimagenet", encoded=True, split_lists=False),
}


@pytest.mark.parametrize("layout", TIERED)
def test_every_layout_of_tiered_imagenet_is_the_same(layout, tmp_path):
    tiny = Tiny()
    TIERED[layout](tiny, tmp_path / "root")
    assert_same(load(TieredImageNet(), tmp_path / "root", tmp_path / "out"), tiny)
    order = read_manifest(tmp_path / "out").notes["channel_order"]
    assert order == ("rgb (turned round from the file's bgr)" if "npz" in layout else "rgb")


def test_the_order_of_channels_can_be_told_and_an_exchange_is_noticed(tmp_path):
    tiny = Tiny()
    for split in SPLITS:  # reddish, as ImageNet is
        tiny.images[split] = np.array([120, 115, 104], np.uint8) + tiny.images[split] // 16
    made.tiered_npz(tiny, tmp_path / "root", reverse=False)
    assert_same(load(TieredImageNet("rgb"), tmp_path / "root", tmp_path / "out"), tiny)
    assert not [r for r in read_manifest(tmp_path / "out").remarks if "exchanged" in r]
    load(TieredImageNet("auto"), tmp_path / "root", tmp_path / "other")
    assert [r for r in read_manifest(tmp_path / "other").remarks if "the channels look exchanged" in r]


def test_labels_without_names_give_classes_without_names_and_a_remark(tmp_path):
    tiny = Tiny()
    made.tiered_npz(tiny, tmp_path / "root", "numbers")
    splits = load(TieredImageNet(), tmp_path / "root", tmp_path / "out")
    assert_same(splits, tiny, numbered(tiny))
    assert [r for r in read_manifest(tmp_path / "out").remarks if "was not checked" in r]


def cifar_hdf5(tiny, root, name):
    import h5py

    (root / "cifar100").mkdir(parents=True)
    with h5py.File(root / "cifar100" / "data.hdf5", "w") as file:
        for split in SPLITS:
            pairs = [(f"coarse {n[-1]}", n) for n in tiny.names[split]]
            for i, (coarse, fine) in enumerate(pairs):
                file.create_dataset(f"{coarse}/{fine}", data=tiny.images[split][tiny.class_of == i])
            made.write(root / "cifar100" / name / f"{split}_labels.json", pairs)


def cifar_original(tiny, root):
    """CIFAR-100 as it is distributed, each class once in the file `train` and the rest in `test`."""
    names = sorted(name for split in SPLITS for name in tiny.names[split])
    rows = {"train": [], "test": []}
    for split in SPLITS:
        for i, (name, image) in enumerate(tiny.each_image(split)):
            place = "train" if i % tiny.each < tiny.each - 1 else "test"
            rows[place].append((image.transpose(2, 0, 1).reshape(-1), names.index(name), SPLITS.index(split)))
    for place, examples in rows.items():
        pixels, fine, coarse = zip(*examples, strict=True)
        content = {"data": np.stack(pixels), "fine_labels": list(fine), "coarse_labels": list(coarse)}
        made.dump(root / "cifar-100-python" / place, content)
    made.dump(
        root / "cifar-100-python" / "meta",
        {"fine_label_names": names, "coarse_label_names": ["super a", "super b", "super c"]},
    )


CIFAR = {
    "hdf5": lambda tiny, root: cifar_hdf5(tiny, root, "cifar-fs"),
    "folders": lambda tiny, root: made.listed_folders(tiny, root / "cifarfs/cifar100", lists="splits/bertinetto"),
    "processed": lambda tiny, root: [tiny.pictures(s, root / "cifarfs" / "processed" / s) for s in SPLITS],
    "parquet": made.parquet,
}


@pytest.mark.parametrize("layout", CIFAR)
def test_every_layout_of_cifar_fs_is_the_same(layout, tmp_path):
    tiny = Tiny(32)
    CIFAR[layout](tiny, tmp_path / "root")
    assert_same(load(CIFARFS(), tmp_path / "root", tmp_path / "out"), tiny)


@pytest.mark.parametrize(("source", "stem"), [(CIFARFS(), "CIFAR_FS"), (FC100(), "FC100")], ids=["CIFAR-FS", "FC100"])
def test_pickles_of_cifar_have_numbers_for_classes(source, stem, tmp_path):
    tiny = Tiny(32)
    made.labelled_pickles(tiny, tmp_path / "root", stem + "_{}.pickle", named=False)
    assert_same(load(source, tmp_path / "root", tmp_path / "out"), tiny, numbered(tiny, (0, 64, 80)))


def test_fc100_of_torchmeta(tmp_path):
    tiny = Tiny(32)
    cifar_hdf5(tiny, tmp_path / "root", "fc100")
    assert_same(load(FC100(), tmp_path / "root", tmp_path / "out"), tiny)


@pytest.mark.parametrize("by", ["class", "superclass"])
def test_the_original_cifar_with_a_list_of_classes(by, tmp_path):
    tiny = Tiny(32)
    cifar_original(tiny, tmp_path / "root")
    lists = tiny.names if by == "class" else dict(zip(SPLITS, (["super a"], ["super b"], ["super c"]), strict=True))
    made.write(tmp_path / "split.json", lists)
    splits = load(FC100(tmp_path / "split.json"), tmp_path / "root", tmp_path / "out")
    for split in SPLITS:
        assert list(splits[split].class_names) == tiny.names[split]
        for i in range(tiny.classes):
            got = splits[split].examples[splits[split].class_of == i]
            np.testing.assert_array_equal(got, tiny.images[split][tiny.class_of == i])


def test_the_original_cifar_needs_a_list_and_knows_its_names(tmp_path):
    cifar_original(Tiny(32), tmp_path / "root")
    with pytest.raises(DataError, match="give a list with --split-file"):
        check(CIFARFS(), "cifar-fs", tmp_path / "root", True, silent)
    made.write(tmp_path / "split.json", {"train": ["dragon"]})
    with pytest.raises(DataError, match="names 'dragon', which CIFAR-100 has neither"):
        check(CIFARFS(tmp_path / "split.json"), "cifar-fs", tmp_path / "root", True, silent)


def test_cub_is_split_by_the_order_of_its_folders_and_cut_to_the_middle(tmp_path):
    rng, images = np.random.default_rng(0), {}
    for c in range(8):
        for i in range(2):
            images[c, i] = rng.integers(0, 256, (10, 14, 3), np.uint8)
            made.write(tmp_path / "r/CUB_200_2011/images" / f"{c:03d}.Bird" / f"{i}.png", "")
            (tmp_path / "r/CUB_200_2011/images" / f"{c:03d}.Bird" / f"{i}.png").write_bytes(made.png(images[c, i]))
    splits = load(CUB(image_size=10), tmp_path / "r", tmp_path / "out")
    classes = {"train": (0, 2, 4, 6), "val": (1, 5), "test": (3, 7)}
    for split, members in classes.items():
        assert splits[split].class_names == tuple(f"{c:03d}.Bird" for c in members)
        expected = np.stack([images[c, i][:, 2:12] for c in members for i in range(2)])
        np.testing.assert_array_equal(splits[split].examples, expected)
    made.write(tmp_path / "split.json", {"train": ["000.Bird"], "val": ["001.Bird"], "test": ["002.Bird"]})
    splits = load(CUB(10, tmp_path / "split.json"), tmp_path / "r", tmp_path / "out2", partial=False)
    assert splits["test"].class_names == ("002.Bird",)


def test_cub_of_torchmeta(tmp_path):
    tiny = Tiny(20)
    made.hdf5(tiny, tmp_path / "root" / "cub", encoded=True, split_lists=False)
    assert_same(load(CUB(image_size=20), tmp_path / "root", tmp_path / "out"), tiny)


DRAWINGS = Tiny(28, channels=1)
CHARACTERS = {split: [f"Greek/{name}" for name in DRAWINGS.names[split]] for split in SPLITS}


class TestOmniglot:
    """Ink is bright here, whatever the file has."""

    def drawings(self, folder, splits=SPLITS):
        for split in splits:
            for i, (name, image) in enumerate(DRAWINGS.each_image(split)):
                path = folder(split) / "Greek" / name / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(made.png(255 - image))

    def test_original(self, tmp_path):
        folders = {"train": "images_background", "test": "images_evaluation"}
        self.drawings(lambda split: tmp_path / "root" / "omniglot-py" / folders[split], folders)
        splits = load(Omniglot(), tmp_path / "root", tmp_path / "out")
        assert list(splits) == ["train", "test"]
        for split in splits:
            assert list(splits[split].class_names) == CHARACTERS[split]
            np.testing.assert_array_equal(splits[split].examples, DRAWINGS.images[split])

    def test_lists_with_turned_drawings(self, tmp_path):
        self.drawings(lambda split: tmp_path / "root" / "data")
        for split in SPLITS:
            lines = [f"{name}/rot{angle}" for name in CHARACTERS[split] for angle in ("000", "090")]
            made.write(tmp_path / "root" / "splits" / "vinyals" / f"{split}.txt", "\n".join(lines))
        splits = load(Omniglot(), tmp_path / "root", tmp_path / "out")
        for split in SPLITS:
            images = DRAWINGS.images[split].reshape(2, 3, 28, 28, 1)
            turned = np.stack([images, np.rot90(images, axes=(2, 3))], axis=1).reshape(-1, 28, 28, 1)
            np.testing.assert_array_equal(splits[split].examples, turned)

    def test_arrays(self, tmp_path):
        for split in SPLITS:
            made.write(tmp_path / "root" / "x", "")
            np.save(tmp_path / "root" / f"{split}_images.npy", 255 - DRAWINGS.images[split])
            rows = {name: np.flatnonzero(DRAWINGS.class_of == i).tolist() for i, name in enumerate(CHARACTERS[split])}
            made.write(tmp_path / "root" / f"{split}_labels.json", rows)
        assert_same(load(Omniglot(), tmp_path / "root", tmp_path / "out"), DRAWINGS, CHARACTERS)

    def test_hdf5(self, tmp_path):
        import h5py

        (tmp_path / "root/omniglot").mkdir(parents=True)
        with h5py.File(tmp_path / "root/omniglot/data.hdf5", "w") as file:
            for split in SPLITS:
                triples = [["images_background", *name.split("/")] for name in CHARACTERS[split]]
                for i, triple in enumerate(triples):
                    images = DRAWINGS.images[split][DRAWINGS.class_of == i, :, :, 0]
                    file.create_dataset("/".join(triple), data=images)
                made.write(tmp_path / "root/omniglot" / f"vinyals_{split}_labels.json", triples)
        assert_same(load(Omniglot(), tmp_path / "root", tmp_path / "out"), DRAWINGS, CHARACTERS)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("key_type", ["U", "S", "O", "list"])
def test_leo_embeddings_have_their_class_in_the_key(key_type, protocol, tmp_path):
    embeddings = made.leo(tmp_path / "root", key_type, protocol=protocol)
    splits = load(LEOMiniImageNet(), tmp_path / "root", tmp_path / "out")
    for i, split in enumerate(SPLITS):
        np.testing.assert_array_equal(splits[split].examples, embeddings[split])
        assert splits[split].class_names == (f"n0{i}0", f"n0{i}1") and splits[split].class_of.tolist() == [0, 0, 1, 1]


def test_leo_embeddings_are_normalised_on_demand_and_tiered_has_its_own_folder(tmp_path):
    embeddings = made.leo(tmp_path / "root", data_set="tieredImageNet")
    splits = load(LEOTieredImageNet("l2"), tmp_path / "root", tmp_path / "out")
    for split in SPLITS:
        norms = np.linalg.norm(embeddings[split], axis=1, keepdims=True)
        np.testing.assert_allclose(splits[split].examples, embeddings[split] / norms, rtol=1e-6)
    assert read_manifest(tmp_path / "out").notes == {"normalise": "l2"}
    made.leo(tmp_path / "root", variant="multiview")
    assert len(load(LEOMiniImageNet("multiview"), tmp_path / "root", tmp_path / "out2")) == 3


def uneven(root, folder):
    """Write classes of two and of five pictures; return how many each has."""
    for c, count in (("wren", 5), ("crow", 2)):
        for i in range(count):
            path = root / folder / c / f"{i}.PNG"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(list(f"{folder}{c}{i}".encode()))
            path.write_bytes(made.png(rng.integers(0, 256, (8, 8, 3), np.uint8)))
    return {"crow": 2, "wren": 5}


@pytest.mark.parametrize("names", [("train", "val", "test"), ("train", "validation", "test"), ("train", "test")])
def test_folders_of_ones_own_have_any_names_and_counts(names, tmp_path):
    for folder in names:
        uneven(tmp_path / "root", folder)
        for path in (tmp_path / "root" / folder).iterdir():
            path.rename(path.with_name(f"{path.name} {folder}"))
    splits = load(ImageFolder(image_size=8), tmp_path / "root", tmp_path / "out", partial=False)
    assert splits["train"].class_names == ("crow train", "wren train")
    assert np.bincount(splits["test"].class_of).tolist() == [2, 5]
    assert len(splits) == len(names)


@pytest.mark.parametrize("how", ["nothing", "lists", "file"])
def test_classes_without_folders_by_split(how, tmp_path):
    uneven(tmp_path / "root", ".")
    split_file = None
    if how == "lists":
        for split, name in zip(SPLITS, ("crow", "wren", "wren"), strict=True):
            made.write(tmp_path / "root" / f"{split}.txt", name)
        (tmp_path / "root" / "val.txt").unlink()
    if how == "file":
        split_file = tmp_path / "split.json"
        made.write(split_file, {"train": ["crow"], "test": ["wren"]})
    splits = load(ImageFolder(8, split_file), tmp_path / "root", tmp_path / "out", partial=False)
    classes = {split: data.class_names for split, data in splits.items()}
    assert classes == ({"test": ("crow", "wren")} if how == "nothing" else {"train": ("crow",), "test": ("wren",)})


@pytest.mark.parametrize("labels", ["texts", "bytes", "numbers"])
@pytest.mark.parametrize("form", ["npz", "compressed npz", "parquet"])
def test_embeddings_of_ones_own(form, labels, tmp_path):
    rng, made_of = np.random.default_rng(0), {}
    for split in SPLITS:
        made_of[split] = rng.standard_normal((6, 5)).astype(np.float32)
        texts = np.array([f"{split} 7", f"{split} 9"] * 3)
        values = {"texts": texts, "bytes": texts.astype("S"), "numbers": np.array([7, 9] * 3)}[labels]
        if form == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pa.table({"embedding": list(made_of[split]), "label": values.tolist()})
            (tmp_path / "root").mkdir(exist_ok=True)
            pq.write_table(table, tmp_path / "root" / f"{split}.parquet")
        else:
            (tmp_path / "root").mkdir(exist_ok=True)
            save = np.savez_compressed if "compressed" in form else np.savez
            save(tmp_path / "root" / f"{split}.npz", embeddings=made_of[split], labels=values)
    splits = load(Embeddings(), tmp_path / "root", tmp_path / "out", partial=False)
    for split in SPLITS:
        np.testing.assert_array_equal(splits[split].examples, made_of[split])
        assert splits[split].class_names == (f"{split} 7", f"{split} 9")
        assert splits[split].class_of.tolist() == [0, 1] * 3


def test_one_file_of_embeddings_is_all_test(tmp_path):
    np.savez(tmp_path / "embeddings.npz", embeddings=np.ones((2, 3)), labels=np.array(["a", "b"]))
    splits = load(Embeddings("l2"), tmp_path, tmp_path / "out")
    assert list(splits) == ["test"]
    np.testing.assert_allclose(splits["test"].examples, 3**-0.5, rtol=1e-6)


def test_a_missing_layout_names_every_layout_tried_and_what_is_missing(tmp_path):
    made.write(tmp_path / "train.csv", "filename,label")
    with pytest.raises(DataError) as caught:
        check(MiniImageNet(), "mini-imagenet", tmp_path, False, silent)
    message = str(caught.value)
    for layout in MiniImageNet().layouts():
        assert layout.name in message
    assert "Ravi and Larochelle (missing: images, val.csv, test.csv)" in message
    with pytest.raises(DataError, match="there is no such folder"):
        check(MiniImageNet(), "mini-imagenet", tmp_path / "nowhere", False, silent)


def test_another_split_of_mini_imagenet_is_taken_only_on_demand(tmp_path):
    tiny = Tiny()
    made.listed_images(tiny, tmp_path / "root", heading="class")
    with pytest.raises(DataError, match=r"those of Vinyals et al.*--vinyals"):
        check(MiniImageNet(), "mini-imagenet", tmp_path / "root", True, silent)
    assert_same(load(MiniImageNet(vinyals=True), tmp_path / "root", tmp_path / "out", partial=False), tiny)


def test_pictures_of_other_sizes_and_kinds_become_rgb_of_one_size(tmp_path):
    from PIL import Image

    tiny = Tiny(16)
    made.listed_images(tiny, tmp_path / "root")
    first = next(iter((tmp_path / "root" / "images").iterdir()))
    Image.new("L", (40, 20), 77).save(first)
    splits = load(MiniImageNet(image_size=16), tmp_path / "root", tmp_path / "out")
    grey = [i for s in splits.values() for i in s.examples if (i == 77).all()]
    assert len(grey) == 1 and json.loads((tmp_path / "out/manifest.json").read_text())["example_shape"] == [16, 16, 3]
