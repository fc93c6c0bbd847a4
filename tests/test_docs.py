"""The pages under docs/ run as they stand, and the API reference can be made."""

import ast
import contextlib
import inspect
import pathlib
import re
import subprocess
import sys
import types
from typing import Any

import keras
import pytest

import keras_grow
from tests.pages import DOCS, PAGES, Page, blocks_of

ROOT = pathlib.Path(__file__).parent.parent
MARKDOWN = sorted(
    str(page.relative_to(DOCS))
    for page in DOCS.rglob("*.md")
    if "api" not in page.relative_to(DOCS).parts  # Made by `make docs`.
)


# Needs processes of its own: test_two_workers.py runs it.
ELSEWHERE = {"beyond_one_machine.md"}
WITH_CODE = [path for path in MARKDOWN if blocks_of(DOCS / path) and path not in ELSEWHERE]


@pytest.mark.parametrize("path", WITH_CODE)
def test_the_code_of_a_page_runs_as_it_stands(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGES.get(path, Page())
    names = page.start()
    for block in blocks_of(DOCS / path):
        exec(block, names)
    page.check(names)


def test_what_is_said_of_pages_is_of_pages_with_code():
    assert set(PAGES) <= set(WITH_CODE)


@pytest.mark.parametrize("path", [path for path in MARKDOWN if path.startswith("coming_from/")])
def test_what_a_table_calls_ours_exists_and_takes_these_arguments(path):
    page = (DOCS / path).read_text(encoding="utf-8")
    ours = [line.split("|")[2] for line in page.splitlines() if line.count("|") == 3]
    for code in re.findall(r"`([^`]+)`", "\n".join(ours)):
        with contextlib.suppress(SyntaxError):  # Such as `layers=`, of which nothing can be said.
            check(ast.parse(code))


def check(code: ast.AST) -> None:
    """Raises where code names what keras_grow lacks, or calls it with what it does not take."""
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute):
            assert thing_of(node) is not None, ast.unparse(node)
        elif isinstance(node, ast.Call):
            called = thing_of(node.func)
            assert called is not None, ast.unparse(node)
            given = [each for each in node.args if ast.unparse(each) != "..."]
            by_name = {each.arg: each.value for each in node.keywords}
            inspect.signature(called).bind_partial(*given, **by_name)


def thing_of(node: ast.expr) -> Any:
    """What an expression names, `None` if there is no such thing."""
    if isinstance(node, ast.Attribute):
        return getattr(thing_of(node.value), node.attr, None)
    layer = keras_grow.GrowableDense(2)
    layer.build((None, 3))
    model = keras.Sequential([keras.Input((3,)), layer])
    known = {"keras": keras, "keras_grow": keras_grow, "layer": layer}
    of_examples = {"model": model, "growable": model}
    return {**known, **of_examples}.get(node.id, getattr(keras_grow, node.id, None))


def test_a_name_or_argument_that_does_not_exist_is_found():
    check(ast.parse("prune(model, density=0.1)"))
    for wrong in ("prun(model)", "scores.Magnitud", "prune(model, sparsity=0.1)", "layer.mask"):
        with pytest.raises((AssertionError, TypeError)):
            check(ast.parse(wrong))


@pytest.mark.slow
def test_the_pictures_of_growth_are_made(tmp_path):
    options = ["--dataset", "digits", "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_pictures.py"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "growth.gif").read_bytes().startswith(b"GIF89a")
    assert (tmp_path / "grown.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_picture_of_channels_is_made(tmp_path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs/make_channels.py"), "--quick", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "channels.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_api_reference_holds_every_public_name(tmp_path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_api.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "keras_grow.html").read_text(encoding="utf-8")
    for name in keras_grow.__all__:
        public = getattr(keras_grow, name)
        if isinstance(public, types.ModuleType):  # On a page of its own.
            assert (tmp_path / f"{public.__name__.replace('.', '/')}.html").exists(), name
        elif not name.startswith("_"):
            assert f'id="{name}"' in page, name
