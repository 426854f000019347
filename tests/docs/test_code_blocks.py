"""Every block of Python in the README and the documentation runs as it stands, on its own."""

import re
import runpy

import pytest

from comln.backbones import Identity
from tests.docs.pages import PAGES, ROOT, CodeBlock, code_blocks
from tests.learners.tasks import episode, objective_and_gradient

BLOCKS = [block for page in PAGES for block in code_blocks(page)]


@pytest.mark.float32
@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.name)
def test_code_block_runs(block: CodeBlock, capsys):
    padding = "\n" * (block.line - 1)  # so that an error names the line of the page
    exec(compile(padding + block.text, str(block.page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_code_block_says_its_language(block: CodeBlock):
    """A block in another spelling of Python would not be run, and nobody would know."""
    assert block.language in {"python", "sh", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_belongs_to_a_block_that_was_found(page):
    fences = re.findall(r"^\s*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(code_blocks(page))


def test_readme_gives_the_two_commands():
    commands = [block.text.strip() for block in BLOCKS if block.page.name == "README.md" and block.language == "sh"]
    assert commands == ["pip install . && comln train", "pip install '.[test]' && pytest"]


def test_the_skeleton_of_a_learner_works_as_it_stands():
    skeleton = runpy.run_path(str(ROOT / "docs" / "extending" / "skeleton_learner.py"))
    learner = skeleton["YourMethod"].init(Identity(4))
    task = episode()
    outcome = learner.classify(task)
    assert bool(outcome.ok) and outcome.logits.shape == task.query.labels.shape
    assert objective_and_gradient(learner, task)[1].strength.shape == ()
