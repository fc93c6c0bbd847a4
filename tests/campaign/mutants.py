"""Mutants: small faults put into the package one at a time; tests of their own room must notice.

Faults are cosmic-ray's. A sample of places is drawn by the seed, and one fault for each. The tests
that run a place are known from one measured run of all rooms; a place that TensorFlow rewrites
before it runs is seen by no such measurement, and gets all tests of its room.
"""

import ast
import collections
import difflib
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]
# The folders of the package in which faults are made, and the tests that must notice.
ROOMS = {
    "connections": ["connections"],
    "search": ["search", "connections"],
    "measuring": ["measuring"],
    "layers": ["layers"],
    "structure": ["structure", "conversion"],
}
_PATIENCE_SECONDS = 900.0
# Faults that change nothing a test could see, each with the reason.
EQUIVALENT = _ROOT / "tests" / "campaign" / "equivalent_mutants.json"


def run(count: int, seed: int, scratch: pathlib.Path) -> dict[str, int]:
    """Makes faults, and runs the tests.

    Args:
        count: how many.
        seed: of the sample.
        scratch: a folder for a copy of the tree, what tests run which lines, and the verdicts that
            are known. `survivors.txt` there shows those that no test noticed.

    Returns:
        How many were killed, survived, are equivalent, or could not be judged in time; and, in
        tenths of a percent, the rate of those killed with its 95% interval.
    """
    tree = _copy(scratch)
    tests_of = _Covered(tree, scratch)
    log = scratch / "verdicts.jsonl"
    made = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for mutant in _sample(count, seed, scratch)[len(made) :]:
        record = mutant | {"verdict": _verdict(mutant, tests_of, tree)}
        made.append(record)
        with log.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['verdict']:>9}  {record['module']}:{record['line']}", flush=True)
    reasons = json.loads(EQUIVALENT.read_text())
    counts: collections.Counter[str] = collections.Counter()
    survivors = []
    for record in made[:count]:
        verdict = record["verdict"]
        if verdict == "survived" and f"{record['module']}\n{record['change']}" in reasons:
            verdict = "equivalent"
        elif verdict == "survived":
            survivors.append(f"{record['module']}:{record['line']}\n{record['change']}\n")
        counts[verdict] += 1
    (scratch / "survivors.txt").write_text("\n".join(survivors))
    low, rate, high = _rate(counts["killed"], counts["survived"])
    return dict(counts) | {
        "tenths of a percent killed": round(1000 * rate),
        "  at least, 95%": round(1000 * low),
        "  at most, 95%": round(1000 * high),
    }


def _copy(scratch: pathlib.Path) -> pathlib.Path:
    """A copy of the tree as it was when the campaign began, without a fault in it."""
    kept, tree = scratch / "kept", scratch / "tree"
    if not kept.exists():
        unfinished = scratch / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in ("keras_grow", "tests", "benchmarks"):
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(_ROOT / name, unfinished / name, ignore=ignored)
        shutil.copy(_ROOT / "pyproject.toml", unfinished)
        unfinished.rename(kept)
    # A run that was killed may have left one.
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(kept, tree)
    return tree


class _Covered:
    """Which tests run which lines, measured once."""

    def __init__(self, tree: pathlib.Path, scratch: pathlib.Path):
        import coverage

        self._tree = tree
        known = scratch / "coverage"
        if not known.exists():
            settings = scratch / "coveragerc"
            settings.write_text(
                f"[run]\ndata_file = {known}-unfinished\nsource = keras_grow\n"
                "dynamic_context = test_function\n"
            )
            rooms = dict.fromkeys(f"tests/{name}" for names in ROOMS.values() for name in names)
            command = ["-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest"]
            code = _python([*command, "-q", "-m", "not slow", *rooms], tree, None)
            if code != 0:
                raise RuntimeError(f"The tests do not pass as they are: they ended with {code}")
            os.replace(f"{known}-unfinished", known)
        self._data = coverage.CoverageData(str(known))
        self._data.read()

    def __call__(self, module: str, line: int) -> list[str]:
        """What to give to pytest for a line: tests that run it, or all of the room."""
        room = ROOMS[module.split("/")[1]]
        contexts = self._data.contexts_by_lineno(str(self._tree / module)).get(line, [])
        found = {test for context in contexts if (test := self._test(context))}
        found = {test for test in found if test.split("/")[1] in room}
        # Those named after the module are the likeliest to notice.
        stem = pathlib.Path(module).stem
        tests = sorted(found, key=lambda test: (f"test_{stem}.py" not in test, test))
        return tests or [f"tests/{name}" for name in room]

    def _test(self, context: str) -> str | None:
        """The name for pytest of a function that coverage calls "tests.room.test_file.test_it"."""
        *module, function = context.split(".")
        path = pathlib.Path(*module).with_suffix(".py") if module else pathlib.Path("none")
        return f"{path}::{function}" if (self._tree / path).exists() else None


def _sample(count: int, seed: int, scratch: pathlib.Path) -> list[dict]:
    """The first mutants of the order that the seed gives."""
    known = scratch / "places.json"
    if not known.exists():
        known.write_text(json.dumps(list(_places(scratch / "tree"))))
    places = json.loads(known.read_text())
    random = np.random.default_rng(seed)
    found: list[dict] = []
    for number in random.permutation(len(places)):
        place = places[number]
        source = (scratch / "tree" / place["module"]).read_text(encoding="utf-8")
        operator, occurrence = place["faults"][random.integers(len(place["faults"]))]
        mutated = _mutated(source, operator, occurrence)
        if mutated is None or _computes(mutated) in (None, _computes(source)):
            continue  # An annotation, or no Python.
        change = "\n".join(
            line
            for line in difflib.unified_diff(
                source.splitlines(), mutated.splitlines(), lineterm="", n=0
            )
            if not line.startswith(("---", "+++", "@@"))
        )
        found.append(
            {
                "module": place["module"],
                "line": place["line"],
                "operator": operator,
                "occurrence": occurrence,
                "change": change,
            }
        )
        if len(found) == count:
            break
    return found


def _places(tree: pathlib.Path) -> Iterator[dict]:
    """Every place where a fault can be made, with the faults that can be made there."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    operators = {name: plugins.get_operator(name) for name in plugins.operator_names()}
    operators = {name: kind() for name, kind in operators.items() if not kind.arguments()}
    for room in ROOMS:
        for path in sorted((tree / "keras_grow" / room).rglob("*.py")):
            nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
            faults: dict[Any, list] = collections.defaultdict(list)
            for name, operator in operators.items():
                positions = [place for node in nodes for place in operator.mutation_positions(node)]
                for occurrence, (start, end) in enumerate(positions):
                    faults[start, end].append((name, occurrence))
            for (start, _), of_place in sorted(faults.items()):
                module = path.relative_to(tree).as_posix()
                yield {"module": module, "line": start[0], "faults": of_place}


def _mutated(source: str, operator: str, occurrence: int) -> str | None:
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    return mutate_code(source, plugins.get_operator(operator)(), occurrence)


def _computes(source: str) -> str | None:
    """What of a module is computed: its tree without annotations and texts that stand alone."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def _verdict(mutant: dict, tests_of: _Covered, tree: pathlib.Path) -> str:
    path = tree / mutant["module"]
    tests = tests_of(mutant["module"], mutant["line"])
    source = path.read_text(encoding="utf-8")
    mutated = _mutated(source, mutant["operator"], mutant["occurrence"])
    assert mutated is not None
    command = ["-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    path.write_text(mutated, encoding="utf-8")
    try:
        code = _python(command, tree, _PATIENCE_SECONDS)
    finally:
        path.write_text(source, encoding="utf-8")
    if code is None:  # A fault can make a loop endless; but these tests may take as long anyway.
        return "undecided" if _python(command, tree, _PATIENCE_SECONDS) is None else "killed"
    return "survived" if code == 0 else "killed"


def _python(arguments: list[str], tree: pathlib.Path, seconds: float | None) -> int | None:
    """Runs Python in a copy of the tree; its exit code, `None` if it took too long."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # What tests have started goes with them.
        process.wait()
        return None


def _rate(killed: int, survived: int) -> tuple[float, float, float]:
    """Wilson's 95% interval of the share killed, and the share in the middle."""
    total, z = max(killed + survived, 1), 1.96
    share = killed / total
    center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return center - half, share, center + half
