"""One method in a process of its own: timed there, cut off from here when it is too slow or large.

Workers stay alive between blocks of repeats and only one works at a time, so the repeats of all
methods interleave, while thread pools, memory and crashes stay apart.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from .instances import PARAMETERS, Instance
from .reference import Exact

_WATCH = 0.05
_BUILD_LIMIT = 120.0
_MAX_CALLS = 200
_VECTORS = ("q", "b", "h", "c")


class CutOff(Exception):
    """A worker was ended for its time or memory; the text is what a table's cell says."""


class Failed(Exception):
    """The method raised; the text is its error."""


class Worker:
    """The near side of a method's process; a new process follows one that was ended."""

    def __init__(self, method: str, threads: int, *, memory_gb: float = 10.0) -> None:
        self.method, self.threads, self.memory_gb = method, threads, memory_gb
        self._process: Any = None

    def call(self, task: str, limit: float, **arguments: Any) -> Any:
        """Run a task of :class:`_Tasks` there; CutOff after ``limit`` seconds, Failed on errors."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self._pipe.send((task, arguments))
        end = time.monotonic() + limit
        watched = psutil.Process(self._process.pid)
        while not self._pipe.poll(_WATCH):
            if not self._process.is_alive():
                self.stop()
                raise Failed("its process died")
            if time.monotonic() > end:
                self.stop()
                raise CutOff(f"> {limit:.0f} s")
            with contextlib.suppress(psutil.NoSuchProcess):
                if watched.memory_info().rss > self.memory_gb * 1e9:
                    self.stop()
                    raise CutOff(f"> {self.memory_gb:g} GB")
        try:
            ok, value = self._pipe.recv()
        except EOFError:
            self.stop()
            raise Failed("its process died") from None
        if not ok:
            raise Failed(value)
        return value

    def _start(self) -> None:
        for name in ("OMP", "MKL", "OPENBLAS"):
            os.environ[f"{name}_NUM_THREADS"] = str(self.threads)
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, self.threads), daemon=True)
        self._process.start()
        far.close()
        try:
            self.call("build", _BUILD_LIMIT, method=self.method)
        except Failed:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


class _Tasks:
    """What a worker can be asked; the methods' names are the tasks'."""

    def build(self, method: str, eps: float | None = None) -> None:
        from .peers import build

        self.peer = build(method, eps)

    def load(self, problem: Path) -> tuple[float, float]:
        """Take a problem, call once, return that call's forward and backward seconds.

        They include what is compiled at a first call.
        """
        self.instance = Instance.load(problem)
        self.peer.load(self.instance)
        return self._timed()

    def block(self, seconds: float, warm: bool) -> list[tuple[float, float]]:
        """Forward and backward seconds of as many calls as fit, at least one."""
        peer, times = self.peer, []
        gc.collect()
        gc.disable()
        if warm:
            peer.backward(peer.forward())
        end = time.perf_counter() + seconds
        while len(times) < _MAX_CALLS:
            times.append(self._timed())
            if time.perf_counter() > end:
                break
        gc.enable()
        return times

    def _timed(self) -> tuple[float, float]:
        start = time.perf_counter()
        state = self.peer.forward()
        middle = time.perf_counter()
        self.peer.backward(state)
        return middle - start, time.perf_counter() - middle

    def extra(self, name: str, **arguments: Any) -> Any:
        """Run a function of :mod:`benchmarks.extras` here."""
        from . import extras

        return getattr(extras, name)(**arguments)

    def accuracy(self, truth: Path) -> dict[str, Any]:
        """The last gradient against the exact one; see :func:`compare`."""
        return compare(self.instance.kind, self.peer.gradients(), Exact.load(truth))

    def memory(self, reset: bool = False) -> float | None:
        """Peak resident memory of this process in GB since the last reset; None off Linux."""
        try:
            if reset:
                Path("/proc/self/clear_refs").write_text("5")
            status = Path("/proc/self/status").read_text()
        except OSError:
            return None
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def compare(kind: str, found: dict[str, np.ndarray], truth: Exact) -> dict[str, Any]:
    """Cosine and relative error of a gradient.

    "cosine" and "error" are over the vector parameters q, b, h, the error the largest of those by
    parameter; "by_parameter" has the relative errors of all that the method differentiates. A
    gradient that is exactly zero is measured against the norm of all vectors'.
    """
    errors, left, right = {}, [], []
    exact = {k: np.asarray(truth.gradient(k)) for k in PARAMETERS[kind] if k in found}
    whole = np.sqrt(sum(np.sum(v**2) for k, v in exact.items() if k in _VECTORS)) or 1.0
    for name, expected in exact.items():
        value = np.asarray(found[name], dtype=float)
        if name == "P":
            value = 0.5 * (value + value.T)
        elif name in ("G", "h"):  # either side may have the bounds as further rows
            rows = min(len(value), len(expected))
            value, expected = value[:rows], expected[:rows]
        norm = np.linalg.norm(expected)
        errors[name] = float(np.linalg.norm(value - expected) / (norm if norm > 0 else whole))
        if name in _VECTORS:
            left.append(value.reshape(-1))
            right.append(expected.reshape(-1))
    a, b = np.concatenate(left), np.concatenate(right)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(a @ b / size) if size > 0 else float("nan")
    vectors = [e for k, e in errors.items() if k in _VECTORS]
    return {"cosine": cosine, "error": max(vectors), "by_parameter": errors}


def _serve(pipe: Connection, threads: int) -> None:
    """The far side: one task after another until the pipe closes."""
    if hasattr(
        os, "sched_setaffinity"
    ):  # for libraries that take as many threads as there are cores
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # some solvers print whatever one asks of them
        os.dup2(quiet, stream)
    import torch

    torch.set_num_threads(threads)
    tasks = _Tasks()
    while True:
        try:
            task, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(tasks, task)(**arguments)))
        except Exception as error:  # reported in the table's cell
            pipe.send((False, f"{type(error).__name__}: {error}"))
