"""Mutants: small faults put into the package one at a time; tests of their own room must notice.

Faults are cosmic-ray's. A sample of places is drawn by the seed, and one fault for each. The tests
that run a place are known from one measured run of all quick tests, which says how many lines they
run, too. A place that runs at import, or that TensorFlow rewrites before it runs, is seen by no
such measurement, and gets the tests that run anything of its module.

Tests are written for what survives: files of tests that have changed since the measured run judge
the survivors anew when the command is given again, and whatever is not judged yet.
"""

import ast
import collections
import concurrent.futures
import contextlib
import difflib
import io
import itertools
import json
import math
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tests.campaign.forks import Forks

_ROOT = pathlib.Path(__file__).parents[2]
# The folders of the package in which faults are made, and the tests that must notice.
ROOMS = {
    "connections": ["connections"],
    "search": ["search", "connections"],
    "measuring": ["measuring"],
    "layers": ["layers", "conformance"],
    "structure": ["structure", "conversion", "neurons"],
}
# Whose lines are counted.
MEASURED = ["tests"]
_PATIENCE_SECONDS = 300.0
# pytest's exit codes where it can't find what it is to run, and where all of it is slow.
_NOT_FOUND, _NO_TESTS = 4, 5
# So long tests of a place take together: first those named after its module, of each the quickest.
_MOST_SECONDS = 30.0
_NO_SOURCE = shutil.ignore_patterns("__pycache__", "results")
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
    kept = _kept(scratch)
    tests_of = _Covered(scratch)
    changed = _changed_tests(kept)
    reasons = json.loads(EQUIVALENT.read_text())
    log = scratch / "verdicts.jsonl"
    made = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    made += _sample(count, seed, scratch)[len(made) :]
    with contextlib.ExitStack() as stack:
        workers: queue.Queue[_Worker] = queue.Queue()
        for number in range(len(os.sched_getaffinity(0))):
            worker = _Worker(kept, scratch / f"tree{number}")
            stack.enter_context(worker.forks)
            workers.put(worker)
        if changed and worker.tested(changed) not in (0, _NO_TESTS):
            raise RuntimeError(f"Tests do not pass on the package as it was: {changed}")

        def judge(mutant: dict) -> dict:
            tests = [test for test in changed if test.startswith(_room(mutant["module"]))]
            # Those named after the module are the likeliest to notice.
            tests.sort(key=lambda test: _named_after(mutant["module"]) not in test)
            if "verdict" not in mutant:
                known = tests_of(mutant["module"], mutant["line"])
                tests += [test for test in known if test.partition("::")[0] not in changed]
            worker = workers.get()
            try:
                return mutant | {"verdict": worker.verdict(mutant, tests) if tests else "survived"}
            finally:
                workers.put(worker)

        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers.qsize()))
        left = [
            n
            for n, each in enumerate(made)
            if "verdict" not in each
            or (each["verdict"] == "survived" and _key(each) not in reasons)
        ]
        left.sort(key=lambda n: "verdict" in made[n])
        for number, record in zip(left, threads.map(judge, [made[n] for n in left]), strict=True):
            made[number] = record
            judged = [json.dumps(record) + "\n" for record in made if "verdict" in record]
            (scratch / "unfinished").write_text("".join(judged))
            (scratch / "unfinished").rename(log)
            print(f"{record['verdict']:>9}  {record['module']}:{record['line']}", flush=True)
    counts: collections.Counter[str] = collections.Counter()
    survivors = []
    for record in made[:count]:
        verdict = record["verdict"]
        if verdict == "survived" and _key(record) in reasons:
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
        "tenths of a percent of lines run": round(10 * tests_of.percent_of_lines),
    }


def _kept(scratch: pathlib.Path) -> pathlib.Path:
    """A copy of the tree as it was when the campaign began."""
    kept = scratch / "kept"
    if not kept.exists():
        unfinished = scratch / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in ("keras_grow", "tests", "benchmarks"):
            shutil.copytree(_ROOT / name, unfinished / name, ignore=_NO_SOURCE)
        shutil.copy(_ROOT / "pyproject.toml", unfinished)
        unfinished.rename(kept)
    return kept


def _changed_tests(kept: pathlib.Path) -> list[str]:
    """The files of the rooms' tests that are not as they were when the campaign began."""
    folders = [_ROOT / "tests" / name for name in sorted(set(itertools.chain(*ROOMS.values())))]
    paths = [path for folder in folders for path in sorted(folder.rglob("test_*.py"))]
    files = [path.relative_to(_ROOT) for path in paths]
    return [
        file.as_posix()
        for file in files
        if not (kept / file).exists() or (kept / file).read_bytes() != (_ROOT / file).read_bytes()
    ]


def _room(module: str) -> tuple[str, ...]:
    """The folders of tests that must notice a fault in a module."""
    return tuple(f"tests/{name}/" for name in ROOMS[module.split("/")[1]])


def _named_after(module: str) -> str:
    """The file of tests that has the name of a module."""
    return f"test_{pathlib.Path(module).stem}.py"


def _key(mutant: dict) -> str:
    """What a fault is called where it is known to change nothing."""
    return f"{mutant['module']}\n{mutant['change']}"


class _Covered:
    """Which tests run which lines, measured once, as the campaign begins."""

    def __init__(self, scratch: pathlib.Path):
        import coverage

        known, settings = scratch / "coverage", scratch / "coveragerc"
        durations = scratch / "durations.xml"
        if not known.exists():
            settings.write_text(
                f"[run]\ndata_file = {known}-unfinished\nsource = keras_grow\n"
                "relative_files = true\n"
            )
            measure = ["--cov", "--cov-context=test", f"--cov-config={settings}", "--cov-report="]
            measure.append(f"--junitxml={durations}")
            quick = ["-q", "-m", "not slow", "-n", "auto", "--dist", "loadfile"]
            command = [sys.executable, "-m", "pytest", *quick, *measure, *MEASURED]
            code = subprocess.run(command, cwd=_ROOT, stdout=subprocess.DEVNULL).returncode
            if code != 0:
                raise RuntimeError(f"The tests do not pass as they are: they ended with {code}")
            os.replace(f"{known}-unfinished", known)
        measured = coverage.Coverage(known, config_file=settings)
        measured.load()
        with contextlib.chdir(scratch / "kept"):
            self.percent_of_lines = measured.report(file=io.StringIO())
        self._data = measured.get_data()
        self._seconds = {
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(
                case.get("time", 0)
            )
            for case in xml.etree.ElementTree.parse(durations).iter("testcase")
        }

    def __call__(self, module: str, line: int) -> list[str]:
        """What to give to pytest for a line: tests of the room that run it, or its module."""
        room, contexts = _room(module), self._data.contexts_by_lineno(module)

        def tests(lines: Iterable[int]) -> set[str]:
            # "tests/search/test_atoms.py::test_sizes[3]|run"
            names = {name.rpartition("|")[0] for each in lines for name in contexts.get(each, [])}
            return {name for name in names if name.startswith(room)}

        found = tests([line]) or tests(contexts)
        near = _named_after(module)
        ordered = sorted(found, key=lambda test: (near not in test, self._seconds[test], test))
        ends = itertools.accumulate(self._seconds[test] for test in ordered)
        return [test for test, end in zip(ordered, ends, strict=True) if end <= _MOST_SECONDS]


def _sample(count: int, seed: int, scratch: pathlib.Path) -> list[dict]:
    """The first mutants of the order that the seed gives."""
    known = scratch / "places.json"
    if not known.exists():
        known.write_text(json.dumps(list(_places(scratch / "kept"))))
    places = json.loads(known.read_text())
    random = np.random.default_rng(seed)
    found: list[dict] = []
    for number in random.permutation(len(places)):
        place = places[number]
        source = (scratch / "kept" / place["module"]).read_text(encoding="utf-8")
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


class _Worker:
    """Judges faults, one after the other, in a tree of its own.

    Args:
        kept: the tree without a fault.
        tree: the folder for its copy.
    """

    def __init__(self, kept: pathlib.Path, tree: pathlib.Path):
        # A run that was killed may have left a fault.
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(kept, tree)
        shutil.rmtree(tree / "tests")
        shutil.copytree(_ROOT / "tests", tree / "tests", ignore=_NO_SOURCE)
        self._tree = tree
        environment = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTEST_ADDOPTS"] = ""  # A report of this process's tests stays.
        self.forks = Forks(["tensorflow", "keras", "pytest"], tree, environment)

    def verdict(self, mutant: dict, tests: list[str]) -> str:
        """Whether some tests notice a fault."""
        path = self._tree / mutant["module"]
        source = path.read_text(encoding="utf-8")
        mutated = _mutated(source, mutant["operator"], mutant["occurrence"])
        assert mutated is not None
        path.write_text(mutated, encoding="utf-8")
        try:
            code = self.tested(tests)
        finally:
            path.write_text(source, encoding="utf-8")
        # A fault can make a loop endless, or a module fail to import; but is it the fault?
        if code in (-signal.SIGKILL, _NOT_FOUND) and self.tested(tests) == code:
            return "undecided"
        return "survived" if code in (0, _NO_TESTS) else "killed"

    def tested(self, tests: list[str]) -> int:
        """pytest's exit code; -9 if it took too long."""
        command = ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests]
        return self.forks.run("pytest:main", command, seconds=_PATIENCE_SECONDS)


def _rate(killed: int, survived: int) -> tuple[float, float, float]:
    """Wilson's 95% interval of the share killed, and the share in the middle."""
    total, z = max(killed + survived, 1), 1.96
    share = killed / total
    center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return center - half, share, center + half
