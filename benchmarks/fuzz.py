"""Draw problems whose answers are known, pose them to every solver, stop at the first wrong answer.

    python -m benchmarks.fuzz --cases 100000 --seed 0 --jobs 2 [--keep-going]
        [--kinds portfolio,ball] [--solvers auto,dense] [--first CASE]

Kinds, units, memory layouts and doors are drawn from the seed and the case's number. Wrong is a
status that claims what is not so, a solution or gradient off by more than the problem's condition
explains, an exception, a crash, more than 20 seconds of processor time; the first of each sort is
printed at once. A solver that says "inaccurate" or "iteration limit" is honest, and counted. Exits
with 1 where an answer is wrong; ``--keep-going`` counts them all. ``--first`` goes on where a run
stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

_STUCK = 120.0
_EVERY = 2.0
_PLAIN = ("right", "honest", "backward")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kinds", type=names, default=[], help="comma separated; default all")
    parser.add_argument(
        "--solvers",
        type=names,
        default=[],
        help="comma separated, or all; default: auto and two drawn at random for each case",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes; 0: in this one, no time limit"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="count wrong answers, do not stop"
    )
    parser.add_argument("--show-honest", action="store_true", help="print the honest ones too")
    return parser.parse_args(arguments)


@dataclass
class Report:
    """Counts by (kind, solver, how it ended); the first report of each sort that is not right."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    told: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def add(self, kind: str, solver: str, ending: str, told: str | None = None) -> bool:
        """Count an ending; whether it is the first of its sort."""
        key = (kind, solver, ending)
        self.counts[key] += 1
        if told is not None:
            self.told.setdefault(key, told)
        return self.counts[key] == 1

    @property
    def wrong(self) -> int:
        """How many answers are neither right nor say that they are not."""
        return sum(n for (_, _, ending), n in self.counts.items() if ending not in _PLAIN)

    @property
    def honest(self) -> int:
        """How many answers say that they are not right."""
        return sum(n for (_, _, ending), n in self.counts.items() if ending in _PLAIN[1:])

    def table(self) -> str:
        """Markdown, kinds × solvers: how many of all were honest (h, of the backward b), wrong."""
        solvers = sorted({s for _, s, _ in self.counts})
        lines = ["| kind | " + " | ".join(solvers) + " |", "|---" * (len(solvers) + 1) + "|"]
        for kind in sorted({k for k, _, _ in self.counts}):
            cells = []
            for solver in solvers:
                own = {e: n for (k, s, e), n in self.counts.items() if (k, s) == (kind, solver)}
                total, right = sum(own.values()), own.get("right", 0)
                honest, backward = own.get("honest", 0), own.get("backward", 0)
                wrong = total - right - honest - backward
                parts = [f"**{wrong} wrong**"] if wrong else []
                parts += [f"{honest} h"] if honest else []
                parts += [f"{backward} b"] if backward else []
                cells.append(f"{', '.join(parts) or 0} of {total}" if total else "")
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _work(pipe: Connection, state: Any, options: argparse.Namespace, numbers: Any) -> None:
    """One worker: cases in turn, each answer sent as (number, kind, solver, ending, report)."""
    import os

    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    # Some solvers print what they think of a problem.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with threadpool_limits(1):
        try:
            for number in numbers:
                for message in answers(options, number, state):
                    pipe.send(message)
                pipe.send(number)
        except KeyboardInterrupt:
            pass


def answers(options: argparse.Namespace, number: int, state: Any = None) -> Any:
    """Pose one case to its solvers; yields (kind, solver, ending, report or None)."""
    from .fuzzing.cases import Case, kinds

    known = kinds()
    among = [known[name] for name in (options.kinds or known)]
    case = Case.draw(options.seed, number, among)
    for solver in case.solvers(options.solvers):
        if state is not None:
            state[:] = [float(number), float(case.kind.solvers.index(solver)), time.monotonic()]
        finding = case.trial.run(solver)
        told = None if finding is None else case.told(solver, finding)
        yield case.kind.name, solver, finding.fault if finding else "right", told


class _Worker:
    """A process that works through its numbers, started again after a hang or crash."""

    def __init__(self, options: argparse.Namespace, numbers: range) -> None:
        self.options, self.numbers = options, numbers
        self.context = multiprocessing.get_context("spawn")
        self.process: Any = None
        self.start()

    def start(self) -> None:
        self.pipe, other = self.context.Pipe(duplex=False)
        self.state = self.context.Array("d", [float(self.numbers.start), 0.0, float("inf")])
        self.process = self.context.Process(
            target=_work, args=(other, self.state, self.options, self.numbers), daemon=True
        )
        self.process.start()
        other.close()

    def finished(self, number: int) -> bool:
        """Note that ``number`` is done; whether it was the last."""
        self.numbers = range(number + self.numbers.step, self.numbers.stop, self.numbers.step)
        return not self.numbers

    def lost(self, why: str) -> tuple[tuple[str, str, str, str], bool]:
        """Give up the case that hangs or crashed: its report, and whether it was the last."""
        from .fuzzing.cases import Case, kinds

        self.process.kill()
        self.process.join()
        self.pipe.close()
        known = kinds()
        case = Case.draw(
            self.options.seed, self.numbers.start,
            [known[name] for name in (self.options.kinds or known)],
        )  # fmt: skip
        from .fuzzing.judge import Finding

        solver = case.kind.solvers[int(self.state[1])]
        told = case.told(solver, Finding(why, "the process was ended"))
        ended = self.finished(self.numbers.start)
        if not ended:
            self.start()
        return (case.kind.name, solver, why, told), ended

    def stuck(self) -> bool:
        """Whether the solver at work has been for too long; its time starts with its first case."""
        return time.monotonic() - self.state[2] > _STUCK


def run(options: argparse.Namespace, *, progress: bool = True) -> Report:
    """All cases; stops after the first wrong answer unless told to keep going."""
    report, start, shown, done = Report(), time.monotonic(), 0.0, 0
    last = options.first + options.cases
    jobs = min(options.jobs, options.cases)
    workers = [_Worker(options, range(options.first + i, last, jobs)) for i in range(jobs)]

    def add(message: tuple[str, str, str, str | None]) -> None:
        first = report.add(*message)
        if first and message[3] and (message[2] not in _PLAIN or options.show_honest):
            print(message[3], end="\n\n", flush=True)

    if not jobs:
        for number in range(options.first, last):
            for message in answers(options, number):
                add(message)
            if report.wrong and not options.keep_going:
                break

    def line(end: str = "") -> None:
        nonlocal shown
        if progress and jobs and (end or time.monotonic() - shown > _EVERY):
            shown = time.monotonic()
            rate = done / max(shown - start, 1e-9)
            first = min([w.numbers.start for w in workers], default=last)
            sys.stderr.write(
                f"\r{done:,} of {options.cases:,} cases ({rate:.0f}/s), all before {first:,}; "
                f"{report.honest:,} honest, {report.wrong:,} wrong {end}"
            )
            sys.stderr.flush()

    try:
        while workers:
            ready = wait([w.pipe for w in workers], timeout=1.0)
            for worker in list(workers):
                ended = False
                if worker.pipe in ready:
                    try:
                        message = worker.pipe.recv()
                    except EOFError:
                        message = "crash"
                elif worker.stuck():
                    message = "hang"
                else:
                    continue
                if isinstance(message, str):
                    message, ended = worker.lost(message)
                    done += 1
                if isinstance(message, int):
                    done += 1
                    ended = worker.finished(message)
                else:
                    add(message)
                if ended:
                    workers.remove(worker)
            line()
            if report.wrong and not options.keep_going:
                break
    except KeyboardInterrupt:
        pass
    finally:
        for worker in workers:
            worker.process.terminate()
    line("\n")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    report = run(options)
    print(report.table())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
