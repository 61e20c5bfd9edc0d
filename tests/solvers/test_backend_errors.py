"""What a solver's package raises is the status of one problem, with its words; a fault of ours is
not hidden by that."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bpqp_portfolio as bp
from bpqp_portfolio import SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver, registry
from bpqp_portfolio.solvers.common.cache import CacheEntry, SolverCache
from bpqp_portfolio.solvers.common.native import BackendError, native

# Solvers of this package call no other one themselves.
BACKENDS = [
    (kind, name)
    for kind in ("qp", "cone")
    for name, entry in registry._SOLVERS[kind].items()
    if name not in ("auto", "dense", "interior") and registry._installed(entry)
]
CALLS = ("setup", "init", "solve", "run", "passModel")


class PanicException(BaseException):
    """As compiled Rust code raises it."""


def broken(package, error, which):
    """``package`` whose ``which``-th solver object raises ``error`` when it is called."""
    count = iter(range(1000))

    class Model:
        def __init__(self, inner, bad):
            self.__dict__.update(inner=inner, bad=bad)

        def __setattr__(self, name, value):
            setattr(self.inner, name, value)

        def __getattr__(self, name):
            value = getattr(self.inner, name)
            if name not in CALLS or not self.bad:
                return value

            def fail(*_, **__):
                raise error

            return fail

    class Package:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            value = getattr(self.inner, name)
            if isinstance(value, types.ModuleType):
                return Package(value)
            if isinstance(value, type) and ({"solve", "run"} & set(dir(value))):
                return lambda *a, **k: Model(value(*a, **k), next(count) == which)
            return value

    return Package(package)


def break_package(monkeypatch, kind, name, error, which):
    entry = registry._SOLVERS[kind][name]
    module = importlib.import_module(f"bpqp_portfolio.solvers.{entry.module}")
    for key, value in list(vars(module).items()):
        if isinstance(value, types.ModuleType) and value.__name__.startswith(entry.package):
            monkeypatch.setattr(module, key, broken(value, error, which))
            return
    raise AssertionError(f"{name}: its package is not in its module")


def batch(items=3):
    """min ½‖z‖² + qᵀz over 1ᵀz = 1, z ≤ 0.8, and ‖z‖ ≤ 10 for cones."""
    q = -torch.tensor([[0.9, 0.4, -0.3]], dtype=torch.float64).repeat(items, 1)
    one = torch.ones(1, 3, dtype=torch.float64)
    h = torch.full((items, 3), 0.8, dtype=torch.float64)
    return q.requires_grad_(), one, one[0, :1], torch.eye(3, dtype=torch.float64), h


def solve(kind, name, data, *, on_failure="nan", cache=None):
    q, A, b, G, h = data
    P = torch.eye(3, dtype=torch.float64)
    if kind == "qp":
        return bp.QPLayer(name, on_failure=on_failure).solve(P, q, A, b, G, h, cache=cache)
    cones = [(None, None, None, 10.0)]
    return bp.SOCPLayer(name, on_failure=on_failure).solve(
        P, q, A, b, G, h, cones=cones, cache=cache
    )


@pytest.mark.parametrize("error", [RuntimeError("it says no"), PanicException("it says no")])
@pytest.mark.parametrize(("kind", "name"), BACKENDS)
def test_an_exception_is_its_item_s_status(monkeypatch, kind, name, error):
    break_package(monkeypatch, kind, name, error, which=1)
    data = batch()
    s = solve(kind, name, data)
    wanted = [SolveStatus.SOLVED, SolveStatus.ITERATION_LIMIT, SolveStatus.SOLVED]
    assert s.status.tolist() == wanted
    assert s.message.tolist() == ["", f"{type(error).__name__}: it says no", ""]
    assert s.z[1].isnan().all()
    z = torch.tensor([0.8, 0.45, -0.25], dtype=torch.float64)
    torch.testing.assert_close(s.z[[0, 2]], z.expand(2, 3), rtol=0, atol=1e-7)
    s.z.square().sum().backward()
    assert (data[0].grad[1] == 0).all() and (data[0].grad[0] != 0).any()


@pytest.mark.parametrize(("kind", "name"), BACKENDS)
def test_throwing_raises_with_its_words(monkeypatch, kind, name):
    break_package(monkeypatch, kind, name, ValueError("it says no"), which=1)
    words = r"1 of 3 problems not solved: item 1: .*\(ValueError: it says no\)"
    with pytest.raises(bp.SolverError, match=words):
        solve(kind, name, batch(), on_failure="raise")


@pytest.mark.parametrize(("kind", "name"), BACKENDS)
def test_a_cache_forgets_what_raised(monkeypatch, kind, name):
    cache = SolverCache()
    with monkeypatch.context() as patch:
        break_package(patch, kind, name, RuntimeError("it says no"), which=0)
        assert solve(kind, name, batch(1), cache=cache).message.tolist()[0]
    for _ in range(2):
        assert solve(kind, name, batch(1), cache=cache).status[0] is SolveStatus.SOLVED


@pytest.mark.parametrize(("kind", "name"), BACKENDS)
def test_a_fault_of_this_package_is_raised(monkeypatch, kind, name):
    def fail(*_, **__):
        raise TypeError("a fault")

    home = (
        "conic.standard_form.ConicForm.of"
        if kind == "cone"
        else "common.standard_form.StandardForm.of"
    )
    monkeypatch.setattr(f"bpqp_portfolio.solvers.{home}", fail)
    with pytest.raises(TypeError, match="a fault"):
        solve(kind, name, batch())


def test_auto_asks_another_solver_where_one_raises(monkeypatch):
    def problem():
        bound = torch.full((40,), 0.1, dtype=torch.float64)
        eye = torch.eye(40, dtype=torch.float64)
        return bp.QPLayer(on_failure="nan").solve(eye, -bound, lb=-bound, ub=bound / 2)

    first = problem().solver
    assert first not in ("dense", "clarabel")
    break_package(monkeypatch, "qp", first, RuntimeError("it says no"), which=0)
    s = problem()
    assert s.status is SolveStatus.SOLVED and s.solver != first and s.message == ""


def test_own_errors_pass_and_interrupts_too():
    for error in (bp.ConfigError("x"), KeyboardInterrupt(), BackendError("x")):
        with pytest.raises(type(error)), native:
            raise error
    with pytest.raises(BackendError, match=r"^KeyError: 'x'$"), native:
        raise KeyError("x")


def test_a_kept_state_that_raises_is_not_kept():
    entry, problem = CacheEntry(), QP(np.eye(2), [1.0, 1.0], lb=[0, 0], ub=[1, 1])
    solver = get_solver("osqp")
    solver.solve(problem, entry=entry)

    def fail(**_):
        raise RuntimeError("it says no")

    object.__setattr__(entry.state, "native", types.SimpleNamespace(update=fail))
    assert solver.solve(problem, entry=entry).message == "RuntimeError: it says no"
    assert entry.state is None and solver.solve(problem, entry=entry).status is SolveStatus.SOLVED


EXTREME = [1e20, 1e31, -1e31, 1e100, 1e155, -1e155, 1e300, -1.7e308, 1e-155, 1e-300, 5e-324]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy says that numbers overflow
@given(
    name=st.sampled_from(available_solvers("qp")),
    argument=st.sampled_from("PqAbGh"),
    value=st.sampled_from(EXTREME),
    zero=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_no_number_of_one_item_loses_the_batch(name, argument, value, zero):
    q, A, b, G, h = batch()
    data = {
        "P": (0.0 if zero else 1.0) * torch.eye(3, dtype=torch.float64).repeat(3, 1, 1),
        "q": q.detach().clone(),
        "A": A.repeat(3, 1, 1),
        "b": b.repeat(3, 1),
        "G": G.repeat(3, 1, 1),
        "h": h,
        "lb": torch.full((3, 3), -1.0, dtype=torch.float64),
    }
    plain = bp.QPLayer(name).solve(**{k: v[[0, 2]].clone() for k, v in data.items()})
    data[argument][1] = value * torch.eye(3, dtype=torch.float64) if argument == "P" else value
    s = bp.QPLayer(name, on_failure="nan").solve(**data)
    assert [s.status[0], s.status[2]] == [SolveStatus.SOLVED] * 2
    torch.testing.assert_close(s.z[[0, 2]], plain.z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("forward", ["slsqp", "trust-constr"])
def test_scipy_s_errors_are_statuses_and_a_callable_s_are_not(monkeypatch, forward):
    def cost(z, target):
        return (z - target).square().sum() + z.pow(4).sum()

    layer = bp.ConvexLayer(cost, forward=forward, on_failure="nan", batched=[True])
    start, target = torch.zeros(2, 2).double(), torch.ones(2, 2).double()
    from bpqp_portfolio.solvers.smooth import scipy_methods as nlp_scipy

    minimize, count = nlp_scipy.optimize.minimize, iter(range(9))

    def fail(*arguments, **settings):
        if next(count) == 1:
            raise ValueError("array must not contain infs or NaNs")
        return minimize(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(nlp_scipy, "optimize", types.SimpleNamespace(minimize=fail))
        s = layer.solve(start, target)
    assert s.status.tolist() == [SolveStatus.SOLVED, SolveStatus.ITERATION_LIMIT]
    assert s.message.tolist() == ["", "ValueError: array must not contain infs or NaNs"]

    calls = iter(range(10**6))

    def faulty(z, target):
        if next(calls) > 12:
            raise ZeroDivisionError("the caller's own")
        return cost(z, target)

    with pytest.raises(ZeroDivisionError, match="the caller's own"):
        bp.ConvexLayer(faulty, forward=forward, on_failure="nan")(start[0], target[0])


def test_bad_data_say_what_they_are():
    q, A, b, G, h = batch()
    h[1, 0] = float("nan")
    s = bp.QPLayer(on_failure="nan").solve(torch.eye(3, dtype=torch.float64), q, A, b, G, h)
    assert s.message.tolist() == ["", "h: entry 0 is nan, expected a number or inf.", ""]
    assert bp.QPLayer().solve(torch.eye(3).double(), q[0], A, b, G, h[0]).message == ""


def test_a_setting_that_is_refused_is_an_error_of_the_caller():
    with pytest.raises(bp.ConfigError, match=r"osqp: one of .*'alpha': 7"):
        options = SolverOptions(native={"alpha": 7.0})
        get_solver("osqp").solve(QP(np.eye(2), [1.0, 1.0]), options=options)


@pytest.mark.parametrize("name", bp.available_solvers("qp"))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_overflow_are_one_items_trouble(name):
    eye, one = torch.eye(2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    P = torch.stack([eye, 1e-300 * eye, eye])
    A = torch.stack([one, 1e200 * one, one])
    q = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = bp.QPLayer(name, on_failure="nan").solve(P, q, A, torch.ones(1, dtype=torch.float64))
    assert [found.status[i] for i in (0, 2)] == [bp.SolveStatus.SOLVED] * 2
    assert found.status[1] is not bp.SolveStatus.SOLVED
    torch.testing.assert_close(found.z[0], torch.tensor([1.0, 0.0], dtype=torch.float64))
