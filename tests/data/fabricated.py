"""Tiny data sets in the layouts that people have them in: the same images, written by each of the usual programs."""

import csv
import io
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")


class Tiny:
    """Images of a few classes for each split, random but the same each time."""

    def __init__(self, size=84, classes=2, each=3, channels=3):
        rng = np.random.default_rng(0)
        self.size, self.classes, self.each = size, classes, each
        self.images = {s: rng.integers(0, 256, (classes * each, size, size, channels), np.uint8) for s in SPLITS}
        self.names = {s: [f"n0{i}{c}" for c in range(classes)] for i, s in enumerate(SPLITS)}
        self.class_of = np.repeat(np.arange(classes), each)

    def each_image(self, split):
        """Yield the class and the image of each example."""
        for image, c in zip(self.images[split], self.class_of, strict=True):
            yield self.names[split][c], image

    def pictures(self, split, folder: Path, flat=False):
        """Write PNG files, in a folder for each class or all in one; return name and class of each."""
        listed = []
        for i, (name, image) in enumerate(self.each_image(split)):
            path = folder / f"{name}{i:08d}.png" if flat else folder / name / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
            listed.append((path.name, name))
        return listed


def png(image):
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def dump(path: Path, content, protocol=2):
    """Write a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


def write(path: Path, text):
    """Write a text file, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def labelled_pickles(tiny, root, name="miniImageNet_category_split_{}.pickle", named=True, protocol=2):
    """As Lee et al. write them; the labels of a split begin anywhere."""
    for start, split in zip((0, 64, 80), SPLITS, strict=True):
        content = {"data": tiny.images[split], "labels": (tiny.class_of + start).tolist()}
        if named:
            content["catname2label"] = {n: start + i for i, n in enumerate(tiny.names[split])}
        phase = "train_phase_train" if named and split == "train" else split
        dump(root / name.format(phase), content, protocol)


def class_dictionaries(tiny, root, val="val", protocol=2):
    """As Ren et al. write them."""
    for split in SPLITS:
        rows = {n: np.flatnonzero(tiny.class_of == i).tolist() for i, n in enumerate(tiny.names[split])}
        name = f"mini-imagenet-cache-{val if split == 'val' else split}.pkl"
        dump(root / name, {"image_data": tiny.images[split], "class_dict": rows}, protocol)


def listed_images(tiny, root, heading="label"):
    """As Ravi and Larochelle, but in PNG, which loses nothing."""
    for split in SPLITS:
        rows = tiny.pictures(split, root / "images", flat=True)
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("filename", heading), *rows])


def hdf5(tiny, root, encoded=False, split_lists=True):
    """As torchmeta writes them: a dataset for each class, of images or of files."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with h5py.File(root / f"{split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for i, name in enumerate(tiny.names[split]):
                images = tiny.images[split][tiny.class_of == i]
                if encoded:
                    dataset = group.create_dataset(name, (len(images),), h5py.vlen_dtype(np.uint8))
                    for row, image in enumerate(images):
                        dataset[row] = np.frombuffer(png(image), np.uint8)
                else:
                    group.create_dataset(name, data=images)
        if split_lists:
            write(root / f"{split}_labels.json", tiny.names[split])


def listed_folders(tiny, root, data="data", lists="splits/ravi-larochelle"):
    """Folders of classes and lists of them."""
    for split in SPLITS:
        tiny.pictures(split, root / data)
        write(root / lists / f"{split}.txt", "\n".join(tiny.names[split]))


def parquet(tiny, root, named=True):
    """As data sets are shared in parquet, with the names of classes in the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        label = pa.array(tiny.class_of, pa.int64())
        images = pa.array([{"bytes": png(image), "path": None} for image in tiny.images[split]])
        table = pa.table({"image": images, "label": label})
        if named:
            info = {"info": {"features": {"label": {"names": tiny.names[split]}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        stem = "validation" if split == "val" else split
        pq.write_table(table, root / "data" / f"{stem}-00000-of-00001.parquet")


def tiered_labels(tiny, root, form):
    """The labels of tieredImageNet, in the three forms that are about."""
    for split in SPLITS:
        names = tiny.names[split]
        content = {
            "list": {"label_specific": tiny.class_of.astype(np.int32), "label_specific_str": names},
            "dict": {
                "label_specific": tiny.class_of.astype(np.int32),
                "label_specific_str": names,
                "label_general": tiny.class_of.astype(np.int32),
                "label_general_str": dict(enumerate(names)),
            },
            "numbers": {"labels": tiny.class_of.tolist()},
        }[form]
        dump(root / f"{split}_labels.pkl", content)


def tiered_npz(tiny, root, form="list", compressed=False, reverse=True):
    """As MetaOptNet has it: the channels the other way round."""
    root.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        images = tiny.images[split][..., ::-1] if reverse else tiny.images[split]
        (np.savez_compressed if compressed else np.savez)(root / f"{split}_images.npz", images=images)
    tiered_labels(tiny, root, form)


def tiered_png(tiny, root, form="list"):
    """As Ren et al. distribute it: a list of arrays of bytes, each a PNG file."""
    for split in SPLITS:
        pictures = [np.frombuffer(png(image), np.uint8)[:, None] for image in tiny.images[split]]
        dump(root / f"{split}_images_png.pkl", pictures)
    tiered_labels(tiny, root, form)


def leo(root, key_type="U", data_set="miniImageNet", variant="center", protocol=2, change=None):
    """LEO's embeddings; returns those of each split."""
    rng, made = np.random.default_rng(0), {}
    for i, split in enumerate(SPLITS):
        names = [f"n0{i}{c}" for c in (0, 0, 1, 1)]
        keys = [f"{k}-{name}-{name}_{k}" for k, name in enumerate(names)]
        embeddings = rng.standard_normal((4, 640)).astype(np.float32)
        if change:
            embeddings, keys = change(embeddings, keys)
        typed = {"U": np.array(keys), "S": np.array(keys, "S"), "O": np.array(keys, object), "list": keys}[key_type]
        content = {"embeddings": embeddings, "labels": [0, 0, 1, 1], "keys": typed}
        dump(root / "embeddings" / data_set / variant / f"{split}_embeddings.pkl", content, protocol)
        made[split] = embeddings
    return made
