"""Archives, arrays, pictures, lists and tables that are hostile or damaged are refused: by name, with a reason, in one
line, and before they cost memory."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest

from comln.data.data_error import DataError
from comln.data.safe_archive import unpack
from comln.data.safe_image import decode_image
from comln.data.safe_npz import open_npy, open_npz
from comln.data.safe_path import inside, read_json, read_lines
from comln.data.sources.cub import CUB
from comln.data.sources.tiered_imagenet import TieredImageNet
from tests.data import fabricated as made


def refused(read, path, reason):
    """Assert that reading a file is refused in one line with its name and the reason, within little memory."""
    tracemalloc.start()
    with pytest.raises(DataError, match=reason) as caught:
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert peak < 96 << 20


# Archives


def tar_with(path, *members):
    """Write a tar archive of members, each a name and a type."""
    with tarfile.open(path, "w") as archive:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"x") if info.size else None)


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out", "a\\..\\out", "C:out"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_that_leads_out_is_refused(kind, name, tmp_path):
    path = tmp_path / f"hostile.{kind}"
    if kind == "tar":
        tar_with(path, (name, tarfile.REGTYPE))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), "x")
    refused(lambda path: unpack(path, tmp_path / "deep" / "into"), path, "which is not inside")
    assert not (tmp_path / "out").exists() and not (tmp_path / "deep" / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_in_a_tar_is_refused(kind, tmp_path):
    tar_with(tmp_path / "hostile.tar", ("link", kind))
    refused(lambda path: unpack(path, tmp_path / "into"), tmp_path / "hostile.tar", "is a link or a device")


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(lambda path: unpack(path, tmp_path / "into"), tmp_path / "hostile.zip", "is a link or a device")


def test_a_member_that_occurs_twice_is_refused(tmp_path):
    tar_with(tmp_path / "hostile.tar", ("a", tarfile.REGTYPE), ("a", tarfile.REGTYPE))
    refused(lambda path: unpack(path, tmp_path / "into"), tmp_path / "hostile.tar", "occurs twice")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(80 << 20))
    refused(lambda path: unpack(path, tmp_path / "into"), tmp_path / "bomb.zip", "as a decompression bomb does")
    tar_with(tmp_path / "two.tar", ("a", tarfile.REGTYPE), ("b", tarfile.REGTYPE))
    refused(lambda path: unpack(path, tmp_path / "other", largest=1), tmp_path / "two.tar", "more than 1 bytes")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("ending", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_with_a_huge_name_is_refused(ending, kind, tmp_path):
    """Names and further headers are read in one piece, before they are members."""
    info, mebibytes = tarfile.TarInfo("x"), 400
    info.type, info.size = kind, mebibytes << 20
    opened = {"tar.gz": gzip.open, "tar.bz2": bz2.open, "tar.xz": lzma.open}[ending]
    with opened(tmp_path / f"bomb.{ending}", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(2):
            file.write(b"a" * (1 << 20))
    refused(lambda path: unpack(path, tmp_path / "into"), tmp_path / f"bomb.{ending}", "between two members")


def test_a_name_longer_than_files_have_is_refused(tmp_path):
    for name in ("a" * 300, "a/" * 5000 + "b", "\u20ac" * 100):
        path = tmp_path / f"long{len(name)}.tar"
        tar_with(path, (name, tarfile.REGTYPE))
        refused(lambda path: unpack(path, tmp_path / "into"), path, "a name longer than files have")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_honest_tar_of_every_compression_is_unpacked(ending, tmp_path):
    mode: Any = f"w:{ending[4:]}"
    with tarfile.open(tmp_path / f"a.{ending}", mode) as archive:
        for i in range(3):
            info = tarfile.TarInfo("long" * 50 + f"/{i}")
            info.size = 3 << 20
            archive.addfile(info, io.BytesIO(bytes([i]) * info.size))
    unpack(tmp_path / f"a.{ending}", tmp_path / "into")
    for i in range(3):
        assert (tmp_path / "into" / ("long" * 50) / f"{i}").read_bytes() == bytes([i]) * (3 << 20)


def xz(content, dictionary):
    """Return content as an .xz file that asks for a dictionary, by the number of its size in the format."""
    packed = bytearray(lzma.compress(content, preset=0))
    end = 12 + 4 * (packed[12] + 1)
    assert packed[14:16] == b"\x21\x01"  # the only filter is LZMA2, with one byte of properties
    packed[16] = dictionary
    packed[end - 4 : end] = struct.pack("<I", zlib.crc32(packed[12 : end - 4]))
    return bytes(packed)


HIGHEST_LEVEL, LARGEST_OF_ALL = 28, 40
"""Dictionaries of 64 MiB, as `xz -9` has it, and of 4 GiB."""


def test_an_xz_that_asks_for_much_memory_is_refused(tmp_path):
    tar_with(tmp_path / "a.tar", ("a", tarfile.REGTYPE))
    content, path = (tmp_path / "a.tar").read_bytes(), tmp_path / "a.tar.xz"
    path.write_bytes(xz(content, LARGEST_OF_ALL))
    refused(lambda path: unpack(path, tmp_path / "into"), path, "unpacking it takes more than 128 MiB of memory")
    path.write_bytes(xz(content[:600], HIGHEST_LEVEL) + xz(content[600:], LARGEST_OF_ALL))
    refused(lambda path: unpack(path, tmp_path / "other"), path, "unpacking it takes more than 128 MiB of memory")


def test_an_xz_of_the_highest_level_in_several_streams_is_unpacked(tmp_path):
    tar_with(tmp_path / "a.tar", ("a", tarfile.REGTYPE), ("b", tarfile.REGTYPE))
    content, path = (tmp_path / "a.tar").read_bytes(), tmp_path / "a.tar.xz"
    packed = xz(content[:600], HIGHEST_LEVEL) + bytes(8) + lzma.compress(content[600:]) + bytes(4)
    path.write_bytes(packed)
    unpack(path, tmp_path / "into")
    assert [(tmp_path / "into" / name).read_text() for name in "ab"] == ["x", "x"]
    path.write_bytes(packed[: len(packed) // 2])
    refused(lambda path: unpack(path, tmp_path / "other"), path, "it is damaged")


def test_a_zip_that_is_packed_by_an_unusual_method_is_refused(tmp_path):
    """LZMA too has a dictionary as large as the file says."""
    for name, read in (("a.zip", lambda path: unpack(path, tmp_path / "into")), ("a.npz", open_npz)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("a.npy", npy(plain((3,)), b"abc"))
        refused(read, tmp_path / name, "is compressed")


def test_an_archive_of_too_many_members_is_refused(tmp_path, monkeypatch):
    from comln.data import safe_archive

    tar_with(tmp_path / "folders.tar", *((f"{i}", tarfile.DIRTYPE) for i in range(20)))
    tar_with(tmp_path / "files.tar", *((f"{i}", tarfile.REGTYPE) for i in range(20)))
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"{i}", "")
    monkeypatch.setattr(safe_archive, "MOST_MEMBERS", 10)
    for name in ("folders.tar", "files.tar", "files.zip"):
        refused(
            lambda path, name=name: unpack(path, tmp_path / f"into {name}"), tmp_path / name, "more than 10 members"
        )


def test_many_members_of_a_tar_take_no_memory(tmp_path):
    """A gigabyte of folders is packed into some megabytes."""
    info = tarfile.TarInfo("folder")
    info.type = tarfile.DIRTYPE
    with gzip.GzipFile(tmp_path / "a.tar.gz", "wb", 1) as file:
        for _ in range(8):
            file.write(info.tobuf() * 1000)
    tracemalloc.start()
    unpack(tmp_path / "a.tar.gz", tmp_path / "into")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar.gz"])
def test_a_damaged_archive_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing of use")
    refused(lambda path: unpack(path, tmp_path / "into"), tmp_path / name, "it is damaged")


def test_an_honest_archive_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/file", "x")
    unpack(tmp_path / "a.zip", tmp_path / "into")
    assert (tmp_path / "into" / "folder" / "file").read_text() == "x"


# Numpy's files


def npy(header, content=b""):
    """Return an .npy file with a header of one's own."""
    text = repr(header).encode() if isinstance(header, dict) else header
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def plain(shape, descr: object = "|u1"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


HOSTILE_NPY = {
    "objects": (npy(plain((1,), "|O"), b"cos\nsystem\n(S'true'\ntR."), "which only unpickling could read"),
    "fields": (npy(plain((1,), [("a", "|O")]), b"12345678"), "which only unpickling could read"),
    "dates": (npy(plain((1,), "<M8[s]"), b"12345678"), "which only unpickling could read"),
    "more than there is": (npy(plain((10**12,)), b"abc"), "truncated or hostile"),
    "negative": (npy(plain((-1,)), b"abc"), "claims the shape"),
    "expression": (npy(b"__import__('os').system('true')"), "not a readable numpy file"),
    "nested": (npy(b"(" * 5000), "not a readable numpy file"),
    "empty": (b"", "not a readable numpy file"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(60), "version"),
}


@pytest.mark.parametrize("attack", HOSTILE_NPY)
@pytest.mark.parametrize("form", ["npy", "npz", "compressed npz"])
def test_a_hostile_numpy_file_is_refused(form, attack, tmp_path):
    content, reason = HOSTILE_NPY[attack]
    path = tmp_path / ("hostile.npy" if form == "npy" else "hostile.npz")
    if form == "npy":
        path.write_bytes(content)
    else:
        method = zipfile.ZIP_DEFLATED if "compressed" in form else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("images.npy", content)
    refused(open_npy if form == "npy" else open_npz, path, reason)


def test_a_compressed_array_that_unpacks_to_too_much_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros(80 << 20, np.uint8))
    refused(open_npz, tmp_path / "bomb.npz", "as a decompression bomb does")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_or_damaged_npz_is_refused(compressed, tmp_path):
    path, images = tmp_path / "a.npz", np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, images=images)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(open_npz, path, "not a readable .npz file")
    if compressed:
        path.write_bytes(whole[:200] + bytes(100) + whole[300:])
        refused(lambda path: list(open_npz(path)["images"].blocks(10)), path, "damaged|not a readable .npz")


def test_arrays_of_every_order_are_read_from_an_npz(tmp_path):
    rows = np.arange(24, dtype="<i4").reshape(6, 4)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", c=rows, fortran=np.asfortranarray(rows), big=rows.astype(">i4"))
        for stored in open_npz(tmp_path / "a.npz").values():
            np.testing.assert_array_equal(np.concatenate(list(stored.blocks(4))), rows)
            np.testing.assert_array_equal(stored.load(), rows)


# Pictures


def png_that_claims(width, height):
    """Return a PNG file with a size of one's own, and next to no content."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


HOSTILE_PICTURES = {
    "many pixels": (png_that_claims(8000, 8000), "pixels are too many"),
    "far too many pixels": (png_that_claims(10**5, 10**5), "too many pixels"),
    "some too many pixels": (png_that_claims(11000, 10000), "too many"),
    "truncated": (made.png(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))[:900], "damaged"),
    "text": (b"hello", "not a picture in one of the formats"),
    "other format": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in one of the formats"),
    "empty": (b"", "not a picture in one of the formats"),
}


@pytest.mark.parametrize("attack", HOSTILE_PICTURES)
def test_a_hostile_picture_is_refused(attack, tmp_path):
    content, reason = HOSTILE_PICTURES[attack]
    refused(lambda path: decode_image(content, str(path), 84), tmp_path / "hostile.png", reason)


# Lists


def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path):
    for name in ("../a", "/etc/passwd", "a/../../b", "a\\b", "c:d", "", "a\0b"):
        refused(lambda path, name=name: inside(tmp_path, name, path), tmp_path / "list.csv", "which is not inside")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"{", "not readable as JSON"), (b"[" * 10**5, "JSON"), (b"\xff", "UTF-8")]
)
def test_a_damaged_list_is_refused(content, reason, tmp_path):
    (tmp_path / "list.json").write_bytes(content)
    refused(read_json, tmp_path / "list.json", reason)


def test_a_list_larger_than_lists_are_is_refused(tmp_path):
    with (tmp_path / "list.txt").open("wb") as file:
        file.truncate(1 << 30)  # a file with a hole: it takes no room on the disk
    refused(read_lines, tmp_path / "list.txt", "too many for a list")


# HDF5 and parquet


@pytest.mark.parametrize("attack", ["external link", "soft link", "external storage", "virtual", "bomb", "no HDF5"])
def test_a_hostile_hdf5_file_is_refused(attack, tmp_path):
    import h5py

    from comln.data.sources.hdf5 import hdf5_split
    from comln.data.sources.pictures import PictureReader

    path, secret = tmp_path / "hostile.hdf5", tmp_path / "secret"
    secret.write_bytes(bytes(12))
    reason = "no dataset"
    with h5py.File(path, "w") as file:
        match attack:
            case "external link":
                file["a"] = h5py.ExternalLink(str(secret), "/a")
            case "soft link":
                file["a"] = h5py.SoftLink("/b")
            case "external storage":
                file.create_dataset("a", (1, 2, 2, 3), np.uint8, external=[(str(secret), 0, 12)])
            case "virtual":
                layout = h5py.VirtualLayout((1, 2, 2, 3), np.uint8)
                layout[:] = h5py.VirtualSource(str(secret), "a", (1, 2, 2, 3))
                file.create_virtual_dataset("a", layout)
            case "bomb":
                file.create_dataset("a", (10**9, 2, 2, 3), np.uint8, chunks=(1, 2, 2, 3))
                reason = "as a decompression bomb does"
    if attack == "no HDF5":
        path.write_bytes(b"hello")
        reason = "not a readable HDF5 file"
    refused(lambda path: hdf5_split(path, [("a", "a")], PictureReader(2)), path, reason)


@pytest.mark.parametrize("attack", ["dataset", "external link", "soft link", "dangling", "loop", "nothing"])
def test_a_group_of_classes_that_is_none_is_refused(attack, tmp_path):
    import h5py

    from comln.data.sources.hdf5 import names_in

    path = tmp_path / "test_data.hdf5"
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other.create_group("datasets").create_group("secret")
    with h5py.File(path, "w") as file:
        match attack:
            case "dataset":
                file.create_dataset("datasets", (3_000_000, 1), np.uint8, chunks=(1000, 1))
            case "external link":
                file["datasets"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/datasets")
            case "soft link":
                file.create_group("real")
                file["datasets"] = h5py.SoftLink("/real")
            case "dangling":
                file["datasets"] = h5py.SoftLink("/nowhere")
            case "loop":
                file["datasets"] = h5py.SoftLink("/datasets")
    refused(lambda path: names_in(path, "datasets"), path, "no group datasets of its own")
    for source in (CUB(), TieredImageNet()):
        refused(lambda path, source=source: read_test_split(source, path), path, "no group datasets of its own")


def read_test_split(source, path):
    layout = next(layout for layout in source.layouts() if layout.name == "torchmeta")
    layout.read(path.parent, "test")


def test_an_hdf5_chunk_far_larger_than_its_dataset_is_refused(tmp_path):
    import h5py

    from comln.data.sources.hdf5 import hdf5_split
    from comln.data.sources.pictures import PictureReader

    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("a", (1, 2, 2, 3), np.uint8, maxshape=(None, 2, 2, 3), chunks=(10**8, 2, 2, 3))
    refused(lambda path: hdf5_split(path, [("a", "a")], PictureReader(2)), tmp_path / "a.hdf5", "decompression bomb")


@pytest.mark.parametrize("column", ["image", "bytes of image", "label"])
def test_a_large_value_that_many_rows_refer_to_is_refused(column, tmp_path):
    """Unpacked, 256 rows of 24 MiB each would take 6 GiB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from comln.data.sources.parquet import batches, parquet_image_split

    path, rows = tmp_path / "train.parquet", np.zeros(256, np.int32)
    values = pa.DictionaryArray.from_arrays(pa.array(rows), pa.array([b"x" * (24 << 20)]))
    if column == "label":
        pq.write_table(pa.table({"label": values}), path, compression="zstd", store_schema=False)
        refused(lambda path: list(batches(path, ["label"])), path, "has texts of more than 4096 bytes")
    else:
        images = values if column == "image" else pa.StructArray.from_arrays([values], ["bytes"])
        table = pa.table({"image": images, "label": rows})
        pq.write_table(table, path, compression="zstd", store_schema=False)
        refused(lambda path: list(parquet_image_split((path,), "train", 8).blocks()), path, "more than 16 MiB")
    assert path.stat().st_size < 1 << 14


@pytest.mark.parametrize("kind", ["bytes of one length", "list of texts", "parts of parts", "list of parts"])
def test_a_column_that_would_be_copied_for_each_row_is_refused(kind, tmp_path):
    """Such a column repeats a value of 8 MiB for each of 256 rows, however little of the file it takes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from comln.data.sources.parquet import batches, parquet_image_split

    path, large = tmp_path / "train.parquet", b"x" * (8 << 20)
    values = {
        "bytes of one length": lambda: pa.array([large] * 2, pa.binary(len(large))),
        "list of texts": lambda: pa.array([[large]] * 2, pa.list_(pa.binary())),
        "parts of parts": lambda: pa.array([{"bytes": {"bytes": large}}] * 2),
        "list of parts": lambda: pa.array([[{"bytes": large}]] * 2),
    }[kind]()
    table = pa.table({"image": values, "label": values})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    refused(lambda path: list(batches(path, ["label"])), path, "its column label is of the type")
    pq.write_table(pa.table({"image": values, "label": [0, 1]}), path, compression="zstd", store_schema=False)
    refused(lambda path: list(parquet_image_split((path,), "train", 8).blocks()), path, "its column image is of the")


def test_labels_that_have_parts_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from comln.data.sources.parquet import batches

    pq.write_table(pa.table({"label": [{"name": "a"}, {"name": "b"}]}), tmp_path / "a.parquet")
    refused(lambda path: list(batches(path, ["label"])), tmp_path / "a.parquet", "its column label has parts")


def test_rows_of_a_large_picture_are_decoded_one_by_one(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from comln.data.sources.parquet import parquet_image_split

    path, rows = tmp_path / "train.parquet", np.zeros(256, np.int32)
    images = pa.DictionaryArray.from_arrays(pa.array(rows), pa.array([png_that_claims(9, 9) + bytes(6 << 20)]))
    pq.write_table(pa.table({"image": images, "label": rows}), path, compression="zstd", store_schema=False)
    refused(lambda path: list(parquet_image_split((path,), "train", 8).blocks()), path, "damaged")


def test_an_embedding_of_one_number_over_and_over_is_refused(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from comln.data.sources import parquet
    from comln.data.sources.parquet import embedding_batches

    monkeypatch.setattr(parquet, "RATIO_FREE", 1 << 22)
    values = pa.array(np.zeros((1 << 20) + 1, np.float32))
    path, table = tmp_path / "a.parquet", pa.table({"embedding": pa.ListArray.from_arrays([0, len(values)], values)})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    refused(lambda path: next(embedding_batches(path)), path, "as a decompression bomb does")


def test_a_damaged_parquet_file_is_refused(tmp_path):
    from comln.data.sources.parquet import batches

    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 and then nothing of use PAR1")
    refused(lambda path: list(batches(path, ["label"])), path, "not a readable parquet file")
    made.parquet(made.Tiny(8), tmp_path)
    whole = tmp_path / "data" / "train-00000-of-00001.parquet"
    refused(lambda path: list(batches(path, ["embedding"])), whole, "lacks the columns")
