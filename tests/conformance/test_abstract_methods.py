"""What a class leaves to those that derive from it is declared so: leaving it out is noticed."""

import ast
import importlib
import inspect
import pathlib

import pytest

import keras_grow

_ROOT = pathlib.Path(keras_grow.__file__).parents[1]


def _methods_without_a_body(path):
    """Class and method, of those that consist of their documentation."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        for method in node.body:
            if not isinstance(method, ast.FunctionDef):
                continue
            is_documentation = isinstance(method.body[0], ast.Expr) and isinstance(
                method.body[0].value, ast.Constant
            )
            if len(method.body) == 1 and is_documentation:
                yield node.name, method.name


_FOUND = {
    path.relative_to(_ROOT).with_suffix("").as_posix().replace("/", "."): found
    for path in sorted((_ROOT / "keras_grow").rglob("*.py"))
    if (found := list(_methods_without_a_body(path)))
}


@pytest.mark.parametrize("module", _FOUND)
def test_methods_without_a_body_are_abstract_or_do_nothing_on_purpose(module):
    classes = vars(importlib.import_module(module))
    for name, method in _FOUND[module]:
        is_abstract = method in getattr(classes[name], "__abstractmethods__", ())
        member = vars(classes[name])[method]
        function = getattr(member, "fget", member)
        does_nothing = inspect.signature(function).return_annotation in (None, "None")
        assert is_abstract or does_nothing, f"{name}.{method}"
        if is_abstract:
            with pytest.raises(TypeError, match=method):
                type(name, (classes[name],), {})()
