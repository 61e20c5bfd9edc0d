"""The fuzz: its references are right, it finds planted faults, and it finds none of its own."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fuzz
from benchmarks.fuzzing import cases
from benchmarks.fuzzing.cone_kinds import CONE_KINDS
from benchmarks.fuzzing.problem import SOLVED
from benchmarks.fuzzing.qp_kinds import QP_KINDS
from bpqp_portfolio.layers import qp as layer
from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.qp.osqp import OSQPSolver

KINDS = {**QP_KINDS, **CONE_KINDS}
FEW, SOME = 4, 12


@pytest.mark.parametrize("kind", cases.kinds())
def test_no_wrong_answer(kind):
    number = FEW if kind in ("smooth", "portfolio_layer") else SOME
    options = fuzz.parse(["--cases", str(number), "--kinds", kind, "--jobs", "0"])
    report = fuzz.run(options)
    assert not report.wrong, "\n\n".join(report.told.values())
    assert sum(report.counts.values()) >= number


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_called_right_meets_the_optimality_conditions(kind):
    for seed in range(5):
        problem = KINDS[kind](np.random.default_rng([seed]))
        if problem.expect != SOLVED:
            continue
        z, fixed = problem.z, problem.lb == problem.ub
        slope = problem.P @ z + 2 * problem.ridge * z + problem.q
        slope += problem.A.T @ problem.nu + problem.G.T @ problem.lam
        slope += problem.upper - problem.lower
        for cone in problem.cones:
            F = cone.matrix(problem.n)
            push = F @ z + cone.g
            w = cone.tau * push / np.linalg.norm(push) if cone.w is None else cone.w
            assert np.linalg.norm(w) <= cone.tau * (1 + 1e-12)
            slope += F.T @ w - cone.tau * cone.c
            room = cone.c @ z + cone.d - np.linalg.norm(push)
            assert abs(cone.tau * room) <= 1e-12
        assert np.abs(slope[~fixed]).max(initial=0.0) <= 1e-12
        assert problem.violation(z) <= 1e-12
        assert min(v.min(initial=0.0) for v in (problem.lam, problem.lower, problem.upper)) >= 0
        assert np.abs(problem.lam * (problem.h - problem.G @ z)).max(initial=0.0) <= 1e-12
        assert np.abs(np.where(problem.lower > 0, z - problem.lb, 0.0)).max() == 0
        assert np.abs(np.where(problem.upper > 0, problem.ub - z, 0.0)).max() == 0


@pytest.mark.parametrize("seed", range(5))
def test_exact_gradients_are_difference_quotients_on_the_active_set(seed):
    rng = np.random.default_rng([seed])
    problem = QP_KINDS["strictly_convex"](rng)
    n, w, step = problem.n, rng.normal(size=problem.n), 1e-6

    def solution(changed):
        on = changed.active
        at = (changed.lower > 0) | (changed.upper > 0)
        where = np.where(changed.lower > 0, changed.lb, changed.ub)[at]
        C = np.concatenate([changed.A, changed.G[on], np.eye(n)[at]])
        side = np.concatenate([changed.b, changed.h[on], where])
        K = np.block([[changed.P, C.T], [C, np.zeros((len(C), len(C)))]])
        return np.linalg.solve(K, np.concatenate([-changed.q, side]))[:n]

    exact = problem.gradients(w)
    for name in ("P", "q", "A", "b", "G", "h", "lb", "ub"):
        value = getattr(problem, name)
        way = rng.normal(size=value.shape)
        way = way + way.T if name == "P" else way
        ends = [replace(problem, **{name: value + sign * step * way}) for sign in (1, -1)]
        slope = w @ (solution(ends[0]) - solution(ends[1])) / (2 * step)
        assert (exact[name] * way).sum() == pytest.approx(slope, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("kind", ["cones", "robust_lp", "ball"])
def test_moving_a_cone_program_moves_its_solution(kind):
    for seed in range(5):
        rng = np.random.default_rng([seed])
        problem = CONE_KINDS[kind](rng)
        if not problem.unique:
            continue
        by, w = rng.normal(size=problem.n), rng.normal(size=problem.n)
        found = problem.gradients(w)
        moved = problem.A @ by @ found["b"] + problem.G @ by @ found["h"]
        moved += by @ (found["lb"] + found["ub"])
        for i, cone in enumerate(problem.cones):
            F = cone.matrix(problem.n)
            moved -= found[f"{i}.g"] @ F @ by + found[f"{i}.d"] * (cone.c @ by)
        assert moved == pytest.approx(w @ by + found["q"] @ problem.P @ by, rel=1e-6, abs=1e-6)


def test_a_case_depends_on_its_numbers_alone():
    known = cases.kinds()
    case = cases.Case.draw(3, 17, list(known.values()))
    alone = cases.Case.draw(3, 17, [case.kind])
    assert alone.trial.snippet("dense") == case.trial.snippet("dense")
    assert alone.trial.describe() == case.trial.describe()
    assert alone.solvers([]) == case.solvers([])


def wrong_point(found):
    return replace(found, z=found.z * (1 + 1e-3), status=SolveStatus.SOLVED)


def false_claim(found):
    return replace(found, status=SolveStatus.PRIMAL_INFEASIBLE)


def trouble(found):
    raise KeyError("planted")


@pytest.mark.parametrize(
    ("plant", "fault"),
    [(wrong_point, "solution"), (false_claim, "status"), (trouble, "exception")],
)
def test_a_planted_fault_is_found(monkeypatch, capsys, plant, fault):
    solve = OSQPSolver.solve
    monkeypatch.setattr(OSQPSolver, "solve", lambda *a, **k: plant(solve(*a, **k)))
    asked = ["--kinds", "box", "--cases", "40", "--solvers", "osqp", "--jobs", "0"]
    assert fuzz.main(asked) == 1
    said = capsys.readouterr().out
    assert f"{fault}: box, solver osqp" in said
    assert "--seed 0 --first 0 --cases 1 --kinds box --solvers osqp" in said
    assert "**1 wrong** of 1" in said
    assert fuzz.main([*asked, "--keep-going"]) == 1
    assert "of 40" in capsys.readouterr().out


def test_a_planted_gradient_is_found(monkeypatch, capsys):
    adjoint = layer.adjoint_stack

    def doubled(*arguments, **settings):
        return replace(found := adjoint(*arguments, **settings), z=2 * found.z)

    monkeypatch.setattr(layer, "adjoint_stack", doubled)
    assert fuzz.main(["--kinds", "box", "--cases", "40", "--solvers", "osqp", "--jobs", "0"]) == 1
    assert "gradient: box, solver osqp" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["strictly_convex", "cones", "factor_days"])
def test_the_reported_snippet_runs(kind, capsys):
    case = cases.Case.draw(0, 1, [cases.kinds()[kind]])
    exec(compile(case.trial.snippet("auto"), kind, "exec"), said := {})
    days = kind == "factor_days"
    assert "tensor(" in capsys.readouterr().out
    found = said["s"].w if days else said["s"].z
    right = case.trial.days[0] if days else case.trial
    unit = right.z if days else right.units.z
    z = found.detach().numpy().reshape(-1, found.shape[-1])[0] / unit
    assert z[-right.problem.n :] == pytest.approx(right.problem.z, abs=1e-6)


def test_processes_share_the_cases(capsys):
    assert fuzz.main(["--kinds", "box", "--cases", "6", "--solvers", "dense", "--jobs", "2"]) == 0
    assert "| box | 0 of 6 |" in capsys.readouterr().out


def ends_at_the_third(pipe, state, options, numbers):
    for number in numbers:
        state[:] = [float(number), 0.0, time.monotonic()]
        if number == 2:
            if options.seed:
                time.sleep(600)
            os._exit(9)
        pipe.send(("box", "auto", "right", None))
        pipe.send(number)


@pytest.mark.parametrize(("seed", "fault"), [(0, "crash"), (1, "hang")])
def test_a_process_that_is_lost_is_a_finding(monkeypatch, capsys, seed, fault):
    monkeypatch.setattr(fuzz, "_work", ends_at_the_third)
    monkeypatch.setattr(fuzz, "_STUCK", 3.0)
    asked = ["--seed", str(seed), "--kinds", "box", "--cases", "5", "--keep-going"]
    report = fuzz.run(fuzz.parse(asked))
    assert report.counts == {("box", "auto", "right"): 4, ("box", "auto", fault): 1}
    assert f"--seed {seed} --first 2 --cases 1 --kinds box" in capsys.readouterr().out
