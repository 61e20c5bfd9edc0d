"""The paper's tables on this machine: every differentiable layer, the same problems, one run.

    python -m benchmarks.paper_tables --quick                          # small sizes, a minute
    python -m benchmarks.paper_tables --json FILE --update-docs      # everything
    python -m benchmarks.paper_tables --json FILE --resume             # go on after an interruption

How the peers are installed and what is measured: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import render
from .instances import make
from .peers import PEERS
from .reference import exact
from .worker import CutOff, Failed, Worker

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "benchmarks" / "figures" / "paper_tables.png"
PAGE = ROOT / "docs" / "benchmarks" / "layers.md"
SMALL, LARGE = ("10x5", "50x10", "100x20", "500x100"), ("1000x200", "3000x1000", "5000x2000")
# Table: kind of problem, sizes n x m, problems per size.
TABLES = {
    "qp": ("qp", SMALL, 3),
    "lp": ("lp", SMALL, 3),
    "boxlp": ("boxlp", SMALL, 3),
    "socp": ("socp", ("10", "50", "100", "500"), 3),
    "large": ("qp", LARGE, 1),
}
EXTRAS = ("batch", "overhead", "tolerance")
_QUICK = ("qp", "boxlp", "socp", "batch", "overhead")
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8)
HAS_TOLERANCE = ("ours", "authors", "dqp", "proxsuite", "qpth", "cvxpylayers", "qpax", "altdiff")
_BLOCK = 0.05  # seconds of repeats before the next method's turn
_SLOW = 10.0  # a first call of this many seconds is the cell's only one
_BUDGET = 10.0  # seconds after which a cell is not repeated further
_HOPELESS = 2.0  # times the limit: expected to take longer, a cell is not tried
_DISTRIBUTIONS = ("numpy", "scipy", "torch", "clarabel", "daqp", "piqp", "cvxpy", "jaxlib")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_tables")
    listed = lambda text: tuple(text.split(","))  # noqa: E731
    every = (*TABLES, *EXTRAS)
    parser.add_argument("--tables", type=listed, default=every, help=",".join(every))
    parser.add_argument("--methods", type=listed, default=tuple(PEERS), help=",".join(PEERS))
    parser.add_argument(
        "--pairs", type=listed, default=(), help="more columns of ours: dense/kkt,osqp/osqp"
    )
    parser.add_argument("--sizes", type=listed, help="instead of every table's own, 100x20,...")
    parser.add_argument("--quick", action="store_true", help="sizes up to 50x10, a minute")
    parser.add_argument("--rounds", type=int, default=6, help="turns of every method")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per call of a cell")
    parser.add_argument("--memory", type=float, default=10.0, help="GB per process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where results go, after every cell")
    parser.add_argument("--resume", action="store_true", help="keep the cells of --json")
    parser.add_argument("--markdown", type=Path, help="all tables in full")
    parser.add_argument("--figure", type=Path, help=f"picture; {FIGURE.name} with --update-docs")
    parser.add_argument("--update-docs", action="store_true", help="the block in docs/benchmarks")
    options = parser.parse_args(argv)
    unknown = [t for t in options.tables if t not in every]
    unknown += [m for m in options.methods if m.partition(":")[0] not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    if options.quick:
        options.rounds = min(options.rounds, 3)
        options.tables = tuple(t for t in options.tables if t in _QUICK)
    if options.resume and not (options.json and options.json.is_file()):
        parser.error("--resume needs the --json file of an earlier run")
    return options


def meta(threads: int) -> dict[str, Any]:
    """Versions, machine and date."""
    names = {*_DISTRIBUTIONS, *(d for e in PEERS.values() for d in e.distributions)}
    versions = {}
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = dict(
            line.split(":", 1) for line in info.read_text().splitlines() if line.count(":") == 1
        )
        fields = {k.strip(): v.strip() for k, v in lines.items()}
        cpu = f"{fields.get('model name', cpu)}, {fields.get('cpu MHz', '?')} MHz"
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }


def size_of(text: str) -> tuple[int, int]:
    """(n, m) of ``"100x20"``; an SOCP's ``"100"`` has m = 0."""
    n, _, m = text.partition("x")
    return int(n), int(m or 0)


class Run:
    """One run: its options, workers, problems on disk, and the report that grows."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.report: dict[str, Any] = {"meta": meta(options.threads), "tables": {}}
        if options.resume:
            self.report = json.loads(options.json.read_text())
            if self.report["meta"]["threads"] != options.threads:
                raise SystemExit("--resume: the earlier run had another number of threads")
        self.workers: dict[str, Worker] = {}
        pairs = tuple(f"ours:{pair}" for pair in options.pairs)
        self.methods = tuple(dict.fromkeys((*options.methods, *pairs)))

    def worker(self, method: str) -> Worker:
        if method not in self.workers:
            options = self.options
            self.workers[method] = Worker(method, options.threads, memory_gb=options.memory)
        return self.workers[method]

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()

    def save(self) -> None:
        if self.options.json:
            partial = self.options.json.with_suffix(".partial")
            partial.write_text(json.dumps(self.report, indent=1))
            partial.replace(self.options.json)

    def problems(self, kind: str, size: str, count: int) -> list[tuple[Path, Path]]:
        """Files of ``count`` problems of this size and of their exact gradients."""
        n, m = size_of(size)
        files = []
        for seed in range(count):
            problem, truth = (
                self.folder / f"{kind}-{n}-{m}-{seed}{end}.npz" for end in ("", "-exact")
            )
            if not truth.is_file():
                instance = make(kind, n, m, seed)
                instance.save(problem)
                exact(instance).save(truth)
            files.append((problem, truth))
        return files

    def table(self, name: str, bar: tqdm) -> None:
        """All cells of a table; in a large one the methods come one after another."""
        kind, _, count = TABLES[name]
        cells = self.report["tables"].setdefault(name, {})
        for size in self.sizes(name):
            row = cells.setdefault(size, {})
            todo = [m for m in self.methods_for(kind) if m not in row]
            bar.update(len(self.methods_for(kind)) - len(todo))
            todo = [m for m in todo if not self.hopeless(name, size, m, row, bar)]
            files = self.problems(kind, size, count) if todo else []
            for group in [[m] for m in todo] if name == "large" else [todo] * bool(todo):
                bar.set_description(f"{name} {size} {group[0] if len(group) == 1 else ''}")
                row.update(self.interleaved(group, files, bar))
                self.save()
            for problem, truth in files:
                problem.unlink()
                truth.unlink()

    def sizes(self, name: str) -> tuple[str, ...]:
        if self.options.sizes:
            return self.options.sizes
        sizes = TABLES[name][1]
        if self.options.quick:
            return sizes[:2] if name == "qp" else sizes[:1]
        return sizes

    def methods_for(self, kind: str) -> list[str]:
        """Methods that solve this kind; our own pairs are pairs of QP solvers."""
        fits = [m for m in self.methods if kind in PEERS[m.partition(":")[0]].kinds]
        return [m for m in fits if kind != "socp" or ":" not in m]

    def hopeless(self, name: str, size: str, method: str, row: dict[str, Any], bar: tqdm) -> bool:
        """Whether the last smaller size says, at n³, that the limit would be passed by far."""
        weight = sum(size_of(size)) ** 3
        smaller = [
            (sum(size_of(s)) ** 3, r[method])
            for t in ("qp", name)
            for s, r in self.report["tables"].get(t, {}).items()
            if TABLES[t][0] == TABLES[name][0] and method in r and sum(size_of(s)) ** 3 < weight
        ]
        if not smaller:
            return False
        size_then, cell = max(smaller, key=lambda pair: pair[0])
        seconds = cell.get("total", cell.get("at_least", 0.0)) * weight / size_then
        if seconds < _HOPELESS * self.options.limit:
            return False
        row[method] = {"problem": f"not run: ≈ {seconds:.0f} s expected", "at_least": seconds}
        bar.update()
        return True

    def interleaved(
        self, methods: list[str], files: list[tuple[Path, Path]], bar: tqdm
    ) -> dict[str, Any]:
        """Cells of these methods, which take turns on each problem."""
        times: dict[str, list[tuple[float, float]]] = {m: [] for m in methods}
        found: dict[str, list[dict[str, Any]]] = {m: [] for m in methods}
        memory: dict[str, float | None] = dict.fromkeys(methods)
        cells: dict[str, dict[str, Any]] = {}
        turns = max(1, self.options.rounds // len(files))
        for problem, truth in files:
            ready = []
            for method in methods:
                if method in cells or sum(map(sum, times[method])) > _BUDGET:
                    continue
                worker, limit = self.worker(method), self.options.limit
                try:
                    worker.call("memory", limit, reset=True)
                    first = worker.call("load", limit, problem=problem)
                    if sum(first) > _SLOW:
                        times[method].append(first)
                    else:
                        ready.append(method)
                    memory[method] = worker.call("memory", limit)
                    found[method].append(worker.call("accuracy", limit, truth=truth))
                except (CutOff, Failed) as error:
                    cells[method] = self.failure(error)
            for _ in range(turns):
                for method in [m for m in ready if m not in cells]:
                    try:
                        block = self.worker(method).call(
                            "block", self.options.limit, seconds=_BLOCK, warm=len(ready) > 1
                        )
                        times[method] += block
                    except (CutOff, Failed) as error:
                        cells[method] = self.failure(error)
                    if sum(map(sum, times[method])) > _BUDGET:
                        ready.remove(method)
        bar.update(len(methods))
        return {m: cells.get(m) or summary(times[m], found[m], memory[m]) for m in methods}

    def failure(self, error: Exception) -> dict[str, Any]:
        least = {"at_least": self.options.limit} if isinstance(error, CutOff) else {}
        return {"problem": str(error), **least}

    def batch(self) -> None:
        n, m, items = (10, 5, 8) if self.options.quick else (100, 20, 64)
        found = self.ours("batch", n=n, m=m, items=items)
        self.report["batch"] = {"size": f"{n}x{m}", "items": items, **found}

    def overhead(self) -> None:
        sizes = ("10x5",) if self.options.quick else ("10x5", "100x20")
        out = {}
        for size in sizes:
            n, m = size_of(size)
            out[size] = self.ours("overhead", n=n, m=m)
        self.report["overhead"] = out

    def ours(self, name: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self.worker("ours").call("extra", 300.0, name=name, pair="", **arguments)
        except (CutOff, Failed) as error:
            return self.failure(error)

    def tolerance(self) -> None:
        """Gradient accuracy at several forward tolerances, over five problems."""
        size = "10x5" if self.options.quick else "100x20"
        files = self.problems("qp", size, 5)
        out: dict[str, Any] = {}
        for method in [m for m in self.methods if m.partition(":")[0] in HAS_TOLERANCE]:
            worker, limit = self.worker(method), self.options.limit
            for eps in TOLERANCES:
                try:
                    worker.call("build", limit, method=method, eps=eps)
                    found = []
                    for problem, truth in files:
                        worker.call("load", limit, problem=problem)
                        found.append(worker.call("accuracy", limit, truth=truth))
                    cell: dict[str, Any] = {
                        "error": statistics.median(f["error"] for f in found),
                        "cosine": min(f["cosine"] for f in found),
                    }
                except (CutOff, Failed) as error:
                    cell = self.failure(error)
                out.setdefault(method, {})[f"{eps:g}"] = cell
            worker.stop()
        self.report["tolerance"] = {"size": size, "cells": out}


def summary(
    times: list[tuple[float, float]], found: list[dict[str, Any]], memory: float | None
) -> dict[str, Any]:
    """One cell: medians in seconds, quartiles of the total, worst accuracy over the problems."""
    forward, backward = np.array(times).T
    low, total, high = np.quantile(forward + backward, [0.25, 0.5, 0.75])
    names = found[0]["by_parameter"]
    return {
        "forward": float(np.median(forward)),
        "backward": float(np.median(backward)),
        "total": float(total),
        "iqr": [float(low), float(high)],
        "calls": len(times),
        "cosine": min(f["cosine"] for f in found),
        "error": max(f["error"] for f in found),
        "by_parameter": {k: max(f["by_parameter"][k] for f in found) for k in names},
        "memory_gb": memory,
    }


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options, Path(folder))
        tables = [t for t in TABLES if t in options.tables]
        cells = sum(len(run.sizes(t)) * len(run.methods_for(TABLES[t][0])) for t in tables)
        try:
            with tqdm(total=cells, unit="cell") as bar:
                for name in tables:
                    run.table(name, bar)
                for name in [e for e in EXTRAS if e in options.tables and e not in run.report]:
                    bar.set_description(name)
                    getattr(run, name)()
                    run.save()
        finally:
            run.stop()
    print(render.compact(run.report))
    if options.markdown:
        options.markdown.write_text(render.full(run.report), encoding="utf-8")
    if options.figure or options.update_docs:
        render.figure(run.report, options.figure or FIGURE)
    if options.update_docs:
        render.update(PAGE, render.compact(run.report))


if __name__ == "__main__":
    main()
