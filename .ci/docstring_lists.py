"""Lets docstrings put a list right under its heading: Markdown wants a blank line there, a reader does not."""

import re

import griffe


class DocstringLists(griffe.Extension):
    """Insert that blank line into every docstring before the documentation is rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Change the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^(?!- |  |$)(.+)\n(?=- )", r"\1\n\n", obj.docstring.value, flags=re.MULTILINE
            )
