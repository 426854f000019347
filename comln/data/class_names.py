"""Names of classes: those that look alike are alike, however their accents are stored."""

__all__ = ["composed"]

import unicodedata


def composed(name: str) -> str:
    r"""Return a name with each accent in one character with its letter (Unicode's NFC), as most keyboards type it.

    Some systems keep the two apart in the names of files, so that one word may be two different names.

    >>> composed("A\u0308pfel") == "\u00c4pfel", len(composed("e\u0301"))
    (True, 1)
    """
    return unicodedata.normalize("NFC", name)
