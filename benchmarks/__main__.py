"""Runs the benchmarks and writes their table.

    python -m benchmarks                     all of them
    python -m benchmarks dispatch scale      some of them
    python -m benchmarks --output table.md   where the table goes (.benchmarks/results.md)
    python -m benchmarks --quick             fewer repeats, to see whether they run

Each subject runs in a process of its own, so that none of them meets the threads, compiled
programs or memory of another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.harness import Row, measured, table, versions

SUBJECTS = (
    "dispatch",
    "fusion",
    "scheduling",
    "concurrency",
    "mixed",
    "scale",
    "memory",
    "imports",
    "processes",
    "transforms",
    "enhanced",
    "models",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Runs benchmarks.")
    parser.add_argument("subjects", nargs="*", help=f"some of: {', '.join(SUBJECTS)}")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks/results.md"))
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    args = parser.parse_args()
    unknown = sorted(set(args.subjects) - set(SUBJECTS))
    if unknown:
        parser.error(f"no subject {', '.join(unknown)}; they are {', '.join(SUBJECTS)}")
    rows: list[Row] = []
    for subject in args.subjects or SUBJECTS:
        print(f"{subject}:", flush=True)
        start = time.perf_counter()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn) as process:
            rows += process.submit(measured, subject, args.quick).result()
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)
    text = f"{table(rows)}\n\n{versions()}; load {os.getloadavg()[0]:.1f}\n"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text)
    print(f"\n{text}\nwritten to {args.output}")
    missed = [row.what for row in rows if row.verdict == "MISSED"]
    if missed:
        print(f"above their bars: {len(missed)} of {len(rows)}", file=sys.stderr)


if __name__ == "__main__":
    main()
