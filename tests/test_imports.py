"""Imports point downwards: from a room to those below it, and never in a circle."""

import ast
import collections
import pathlib
import subprocess
import sys

import keras_grow

_PACKAGE = pathlib.Path(keras_grow.__file__).parent

# From the top down; a room may import those behind it, and nothing before it.
_ROOMS = [
    "__init__",
    "records",
    "errors",
    "synthesis",
    "callbacks",
    "plotting",
    "areas",
    "neurons",
    "connections",
    "export",
    "conversion",
    "report",
    "environment",
    "weight_norm_initialization",
    "measuring",
    "optimizer_slots",
    "structure",
    "layers",
    "search",
    "policies",
    "kernel_axes",
    "as_it_was",
    "keras_private",
    "compatibility",
    "integers",
    "version",
]


def _module(path):
    parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(parts)


def _imports():
    """Pairs of modules of the package of which the first imports the second."""
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.ImportFrom) and node.module):
                continue
            if node.module.split(".")[0] != "keras_grow":
                continue
            for alias in node.names:
                inner = _PACKAGE.parent.joinpath(*node.module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield _module(path), f"{node.module}.{alias.name}" if is_module else node.module


def _room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_room_has_its_place():
    assert {_room(_module(path)) for path in _PACKAGE.rglob("*.py")} == set(_ROOMS)


def test_imports_point_downwards():
    upwards = {
        f"{importer} imports {imported}"
        for importer, imported in _imports()
        if _ROOMS.index(_room(importer)) > _ROOMS.index(_room(imported))
    }
    assert not upwards


def test_no_module_imports_itself_through_others():
    imported = collections.defaultdict(set)
    for importer, other in _imports():
        imported[importer].add(other)

    def reached(module, seen):
        for other in imported[module] - seen:
            seen.add(other)
            reached(other, seen)
        return seen

    assert not [module for module in list(imported) if module in reached(module, set())]


def test_rooms_of_their_own_are_used_by_none_but_what_shows_them():
    users = collections.defaultdict(set)
    for importer, other in _imports():
        if _room(importer) != _room(other):
            users[_room(other)].add(_room(importer))
    assert users["areas"] | users["synthesis"] <= {"__init__", "records"}


def test_the_import_leaves_tensorflow_to_be_set_up():
    program = (
        "import keras_grow, tensorflow as tf\n"
        "tf.config.threading.set_intra_op_parallelism_threads(1)\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "print(len(tf.config.list_logical_devices('CPU')))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert ran.stdout.split()[-1] == "2"
