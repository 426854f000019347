"""A reader of pickles that runs nothing: it knows the few instructions that data sets need, and calls no function.

A pickle is a program. The standard reader runs it, importing and calling what it names; even with a list of permitted
names it makes every array in memory at once, and trusts the sizes that the program claims. This reader interprets the
program itself. It knows the names that stand for numpy arrays, types and numbers in the files of Python 2 and 3, and
turns them into `StoredArray`, which leaves the content in the file; a claim beyond the end of the file is refused
where it stands. Any other name or instruction is refused.
"""

__all__ = ["load_pickle"]

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from comln.data.data_error import DataError
from comln.data.stored_array import FileBytes, StoredArray

MOST_INSTRUCTIONS = 20_000_000
"""A tieredImageNet of 448,695 compressed pictures needs half of this."""
MOST_KEPT = 3 << 29
"""Bytes of memory that its values may take, all together, by an estimate that is some two times too high; that
tieredImageNet, written in protocol 2, is estimated to take 0.9 GiB."""
KEPT_FREE = 1 << 26
HIGHEST_RATIO = 8
"""A file may also take no more memory than this many times its size and `KEPT_FREE`."""
ITEM, CONTAINER, DICTIONARY = 64, 128, 256
"""Bytes that a number or text takes beside its content; a tuple, list, array or numbered place; a dictionary."""
MOST_MARKS = 1000
"""Marks that are open at a time; honest programs have as many as they have lists in lists."""
LONGEST_TEXT = 1024
"""Longer runs of bytes stay in the file."""
LONGEST_LINE = 4096
LONGEST_ITEM = 4096
MOST_AXES = 8
HIGHEST_PROTOCOL = 5

ARRAY, NUMBER, BUFFER, ARRAY_CLASS, TYPE, ENCODE = "array", "number", "buffer", "array class", "type", "encode"
NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): ARRAY,
    ("numpy.core.multiarray", "scalar"): NUMBER,
    ("numpy._core.multiarray", "scalar"): NUMBER,
    ("numpy.core.numeric", "_frombuffer"): BUFFER,
    ("numpy._core.numeric", "_frombuffer"): BUFFER,
    ("numpy", "ndarray"): ARRAY_CLASS,
    ("numpy", "dtype"): TYPE,
    ("_codecs", "encode"): ENCODE,
}
TYPE_CODE = re.compile(r"([biufSU])(\d{1,4})|O8?")


def load_pickle(path: Path) -> Any:
    """Return what a pickle holds: dictionaries, lists, tuples, numbers, texts and `StoredArray`.

    Texts of Python 2 are read as Latin-1. An array of objects is returned as a list of them.

    **Raises:** `DataError` for a damaged file and for one that holds, or asks for, anything else.
    """
    with path.open("rb", buffering=1 << 16) as file:
        reader = _Reader(path, file, path.stat().st_size)
        try:
            return reader.run()
        except DataError:
            raise
        except IndexError:
            raise DataError(path, "it is not a pickle, or a damaged one: an instruction lacks its arguments.") from None
        except RecursionError:
            raise DataError(path, "it is refused: its values are nested too deeply.") from None
        except (ValueError, TypeError, KeyError, OverflowError, struct.error) as error:
            raise DataError(path, f"it is not a pickle, or a damaged one ({error}).") from error


@dataclass(frozen=True)
class _Name:
    """A permitted name, standing for what it is used for."""

    use: str


@dataclass(eq=False)
class _Unbuilt:
    """An array or a type (then with its code) before its state is known, and where the program memorised it."""

    code: str | None
    places: list[int] = field(default_factory=list)


class _Reader:
    """Interprets one pickle: a stack, marks on it, and a memory of numbered values."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memory: dict[int, Any] = {}
        self.most_kept = min(MOST_KEPT, KEPT_FREE + HIGHEST_RATIO * size)
        self.kept = 0

    def run(self) -> Any:
        """Return the value that the program ends with."""
        for _ in range(MOST_INSTRUCTIONS):
            code = self.file.read(1)
            if code == b".":
                return self.stack.pop()
            if not code:
                raise DataError(self.path, "it is not a whole pickle: it ends early. Get it again.")
            instruction = self.INSTRUCTIONS.get(code[0])
            if instruction is None:
                raise DataError(
                    self.path, f"it uses the pickle instruction {code!r}, which no data set needs. It is refused."
                )
            instruction(self)
        raise DataError(self.path, f"it is refused: it has more than {MOST_INSTRUCTIONS} instructions.")

    # Reading

    def take(self, count: int) -> bytes:
        """Return the next bytes, few enough to be kept."""
        self.keep(ITEM + count)
        content = self.file.read(count)
        if len(content) < count:
            raise DataError(self.path, "it ends early: it is truncated. Get it again.")
        return content

    def keep(self, count: int) -> None:
        """Count bytes that are kept in memory, even if they are given up later."""
        self.kept += count
        if self.kept > self.most_kept:
            raise DataError(
                self.path,
                f"it is refused: what it makes takes more than {self.most_kept >> 20} MiB of memory, too much for its "
                f"{self.size} bytes.",
            )

    def line(self) -> str:
        """Return the next line, a short one."""
        content = self.file.readline(LONGEST_LINE)
        if not content.endswith(b"\n"):
            raise DataError(self.path, "it is not a pickle, or a damaged one: a line does not end.")
        return content[:-1].decode("ascii")

    def size_of(self, width: int) -> int:
        """Return the length that an instruction claims, if the file can hold it."""
        count = int.from_bytes(self.file.read(width), "little")
        if count > self.size - self.file.tell():
            raise DataError(
                self.path,
                f"it claims a run of {count} bytes, more than it has left: it is truncated or hostile. Get it again.",
            )
        return count

    def run_of(self, width: int) -> bytes | FileBytes:
        """Return the run of bytes that comes next, after its length; a long one stays in the file."""
        count = self.size_of(width)
        if count <= LONGEST_TEXT:
            return self.take(count)
        place = FileBytes(self.path, self.file.tell(), count)
        self.file.seek(count, 1)
        return place

    def long_line(self, encoding: str, quoted: bool) -> str | FileBytes:
        """Return the text on the next line, written in escapes; a long one stays in the file."""
        start, length = self.file.tell(), 0
        while True:
            content = self.file.readline(1 << 20)
            length += len(content)
            if not content:
                raise DataError(self.path, "it ends early: it is truncated. Get it again.")
            if content.endswith(b"\n"):
                break
        after, frame = start + length, 1 if quoted else 0
        place = FileBytes(self.path, start + frame, length - 1 - 2 * frame, encoding)
        if place.length <= LONGEST_TEXT:
            self.file.seek(start)
            content = self.take(length)[:-1]
            if quoted and (len(content) < 2 or content[:1] not in (b"'", b'"') or content[-1:] != content[:1]):
                raise DataError(self.path, "it is not a pickle, or a damaged one: a text lacks its quotes.")
            return content[frame : len(content) - frame].decode(encoding)
        self.file.seek(after)
        return place

    # Stack and memory

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def contain(self, value: Any) -> None:
        """Push something that holds, or will hold, others, and takes far more memory than its instruction."""
        self.keep(DICTIONARY if type(value) is dict else CONTAINER)
        self.push(value)

    def mark(self) -> None:
        if len(self.below_marks) >= MOST_MARKS:
            raise DataError(self.path, f"it is refused: it has more than {MOST_MARKS} marks at a time.")
        self.below_marks.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        values = self.stack
        self.stack = self.below_marks.pop()
        return values

    def memorise(self, place: int) -> None:
        value = self.stack[-1]
        if isinstance(value, _Unbuilt):
            value.places.append(place)
        self.keep(CONTAINER)
        self.memory[place] = value

    def recall(self, place: int) -> None:
        self.push(self.memory[place])

    def put_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        parts = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.contain(parts)

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise DataError(self.path, "it is refused: it appends to something that is no list.")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise DataError(self.path, "it is refused: it sets items of something that is no dictionary.")
        # The hash of a tuple goes down into it, without a limit that would stop it before the end of the memory.
        if not all(key is None or isinstance(key, str | bytes | int | np.integer) for key in values[::2]):
            raise DataError(self.path, "it is refused: a key of a dictionary is neither a text nor a whole number.")
        target.update(zip(values[::2], values[1::2], strict=True))

    def new_dictionary(self, values: list[Any]) -> None:
        self.contain({})
        self.set_items(values)

    # Names, and what may be done with them

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise DataError(self.path, "it is refused: it asks for a name that is no text.")
        if (module, name) not in NAMES:
            raise DataError(
                self.path,
                f"it asks for {module[:200]}.{name[:200]}, which could run code. It is refused; nothing was run.",
            )
        self.contain(_Name(NAMES[module, name]))

    def reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise DataError(self.path, "it is refused: it calls something that is no permitted name.")
        match name.use, arguments:
            case "array", (_Name(use="array class"), (0,), _):
                self.contain(_Unbuilt(None))
            case "number", (np.dtype() as dtype, content):
                stored = self.stored(dtype, (), False, content)
                self.contain(stored.load()[()] if isinstance(stored, StoredArray) else stored)
            case "buffer", (content, np.dtype() as dtype, tuple() as shape, ("C" | "F") as order):
                self.contain(self.stored(dtype, shape, order == "F", content))
            case "type", (str() | bytes() as code, *_):
                self.contain(_Unbuilt(code if isinstance(code, str) else code.decode("latin1")))
            case "encode", (str() | FileBytes() as text, *rest) if rest in (
                [],
                ["latin1"],
                ["latin-1"],
                ["iso-8859-1"],
            ):
                self.push(text if isinstance(text, FileBytes) else self.encoded(text))
            case use, _:
                raise DataError(self.path, f"it is refused: it makes a numpy {use} in a way that numpy does not.")

    def encoded(self, text: str) -> bytes:
        self.keep(ITEM + len(text))
        return text.encode("latin1")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Unbuilt) or not isinstance(state, tuple):
            raise DataError(self.path, "it is refused: it sets the state of something that is no array.")
        built = self.array(state) if target.code is None else self.dtype(target.code, state)
        for place in target.places:
            self.memory[place] = built
        self.push(built)

    def dtype(self, code: str, state: tuple[Any, ...]) -> np.dtype:
        """Return a plain type: numbers, texts, or objects; none with fields, sub-arrays or a size of its own."""
        match = TYPE_CODE.fullmatch(code)
        if match is None or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise DataError(self.path, f"it is refused: it holds arrays of the type {code!r}.")
        if match[1] is None:
            return np.dtype(object)
        if not 0 < int(match[2]) <= LONGEST_ITEM:
            raise DataError(self.path, f"it is refused: it holds arrays of the type {code!r}.")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise DataError(self.path, "it is refused: the order of bytes of an array is neither < nor >.")
        return np.dtype(code).newbyteorder(">" if order == ">" else "<" if order == "<" else "=")

    def array(self, state: tuple[Any, ...]) -> StoredArray | list[Any]:
        match state:
            case (int(), tuple() as shape, np.dtype() as dtype, (bool() | int()) as column_major, content):
                return self.stored(dtype, shape, bool(column_major), content)
        raise DataError(self.path, "it is refused: an array's state is not what numpy writes.")

    def stored(
        self, dtype: np.dtype, shape: tuple[Any, ...], column_major: bool, content: Any
    ) -> StoredArray | list[Any]:
        """Return an array whose shape and content agree."""
        if len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
            plain = len(shape) <= MOST_AXES and all(type(n) is int for n in shape)
            shown = str(shape)[:100] if plain else f"of something other than {MOST_AXES} whole numbers at most"
            raise DataError(self.path, f"it is refused: an array claims the shape {shown}.")
        if dtype.hasobject:
            if type(content) is not list or shape != (len(content),):
                raise DataError(self.path, "it is refused: an array of objects is no list of them.")
            return content
        if isinstance(content, str):
            content = self.encoded(content)
        if not isinstance(content, bytes | FileBytes):
            raise DataError(self.path, "it is refused: an array's content is no bytes.")
        wanted = math.prod(shape) * dtype.itemsize
        encoded = isinstance(content, FileBytes) and content.encoding is not None
        length = content.length if isinstance(content, FileBytes) else len(content)
        # Encoded, each byte takes one to six; what it comes to is seen when it is read.
        if wanted > length or (not encoded and wanted != length):
            raise DataError(
                self.path, f"an array claims the shape {shape}, {wanted} bytes, but has {length}: it is refused."
            )
        return StoredArray(self.path, dtype, shape, column_major, content)

    def text(self, content: bytes | FileBytes, encoding: str) -> str | FileBytes:
        if isinstance(content, FileBytes):
            return FileBytes(content.path, content.offset, content.length, encoding)
        return content.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def old_text(self, width: int) -> str | FileBytes:
        """Return a text of Python 2, one byte for each character."""
        content = self.run_of(width)
        return content if isinstance(content, FileBytes) else content.decode("latin1")

    def protocol(self) -> None:
        if self.file.read(1)[0] > HIGHEST_PROTOCOL:
            raise DataError(self.path, f"it is not a pickle of protocol {HIGHEST_PROTOCOL} or older.")

    def frame(self) -> None:
        self.size_of(8)

    def integer_line(self) -> int | bool:
        line = self.line()
        self.keep(ITEM + len(line))
        return {"00": False, "01": True}[line] if line in ("00", "01") else int(line.rstrip("L"))

    def little(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def place(self, width: int) -> int:
        """Return the number of a place in memory."""
        content = self.file.read(width)
        if len(content) < width:
            raise IndexError
        return int.from_bytes(content, "little")

    INSTRUCTIONS: ClassVar[dict[int, Callable[["_Reader"], None]]] = {
        code[0]: instruction
        for code, instruction in {
            b"\x80": protocol,
            b"\x95": frame,
            b"c": lambda r: r.name(r.line(), r.line()),
            b"\x93": lambda r: r.name(*(r.stack.pop(-2), r.stack.pop())),
            b"R": reduce,
            b"b": build,
            b"(": mark,
            b"t": lambda r: r.contain(tuple(r.above_mark())),
            b")": lambda r: r.push(()),
            b"\x85": lambda r: r.put_tuple(1),
            b"\x86": lambda r: r.put_tuple(2),
            b"\x87": lambda r: r.put_tuple(3),
            b"}": lambda r: r.contain({}),
            b"d": lambda r: r.new_dictionary(r.above_mark()),
            b"s": lambda r: r.set_items([r.stack.pop(-2), r.stack.pop()]),
            b"u": lambda r: r.set_items(r.above_mark()),
            b"]": lambda r: r.contain([]),
            b"l": lambda r: r.contain(r.above_mark()),
            b"a": lambda r: r.append([r.stack.pop()]),
            b"e": lambda r: r.append(r.above_mark()),
            b"S": lambda r: r.push(r.long_line("unicode_escape", quoted=True)),
            b"U": lambda r: r.push(r.old_text(1)),
            b"T": lambda r: r.push(r.old_text(4)),
            b"V": lambda r: r.push(r.long_line("raw_unicode_escape", quoted=False)),
            b"\x8c": lambda r: r.push(r.text(r.run_of(1), "utf-8")),
            b"X": lambda r: r.push(r.text(r.run_of(4), "utf-8")),
            b"\x8d": lambda r: r.push(r.text(r.run_of(8), "utf-8")),
            b"C": lambda r: r.push(r.run_of(1)),
            b"B": lambda r: r.push(r.run_of(4)),
            b"\x8e": lambda r: r.push(r.run_of(8)),
            b"\x96": lambda r: r.push(r.run_of(8)),
            b"I": lambda r: r.push(r.integer_line()),
            b"J": lambda r: r.push(r.little(4, signed=True)),
            b"K": lambda r: r.push(r.little(1)),
            b"M": lambda r: r.push(r.little(2)),
            b"L": lambda r: r.push(r.integer_line()),
            b"\x8a": lambda r: r.push(r.little(r.little(1), signed=True)),
            b"N": lambda r: r.push(None),
            b"\x88": lambda r: r.push(True),
            b"\x89": lambda r: r.push(False),
            b"g": lambda r: r.recall(int(r.line())),
            b"h": lambda r: r.recall(r.place(1)),
            b"j": lambda r: r.recall(r.place(4)),
            b"p": lambda r: r.memorise(int(r.line())),
            b"q": lambda r: r.memorise(r.place(1)),
            b"r": lambda r: r.memorise(r.place(4)),
            b"\x94": lambda r: r.memorise(len(r.memory)),
        }.items()
    }
    """What each instruction does, by its code."""
