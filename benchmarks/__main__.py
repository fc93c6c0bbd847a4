"""Runs benchmarks, each in a process of its own, and writes their results.

    python -m benchmarks                 all of these: about three hours
    python -m benchmarks training growth only these

`--quick` measures little, of those that have this option. All measure time and memory but `reach`,
which measures accuracy, and takes MNIST from where `TFDS_DATA_DIR` says. The other studies of
accuracy take hours and have commands of their own: `python -m benchmarks.digits`,
`benchmarks.mnist`, `benchmarks.seed_size`, `benchmarks.cifar`, `benchmarks.wide`, and
`benchmarks.quantized`, which trains what it measures. `benchmarks.runtimes` needs OpenVINO.
"""

import argparse
import pathlib
import subprocess
import sys

from benchmarks import harness

QUICK = (
    "training",
    "growth",
    "ranking",
    "sparse",
    "shared_fan_in",
    "inference",
    "kernels",
    "channels",
    "reach",
)
BENCHMARKS = (*QUICK, "sharding", "tiled_growth")


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmarks named, goes on where one fails, and returns how many failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help=f"little, of {', '.join(QUICK)}")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    known = QUICK if arguments.quick else BENCHMARKS
    unknown = set(arguments.names) - set(known)
    if unknown:
        parser.error(f"unknown benchmarks: {sorted(unknown)}, expected some of {known}")
    failed = []
    for name in [name for name in known if name in (arguments.names or known)]:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(arguments.output)]
        print(f"== {name}", flush=True)
        done = subprocess.run(command + ["--quick"] * arguments.quick, check=False)
        if done.returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
