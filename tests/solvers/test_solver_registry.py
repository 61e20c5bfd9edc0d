"""The registry: solvers by name, and three kinds of failure that are not confused."""

from __future__ import annotations

import sys
import types

import pytest

from bpqp_portfolio.errors import ConfigError, SolverNotInstalledError
from bpqp_portfolio.solvers import (
    SolverOptions,
    available_solvers,
    get_solver,
    registry,
    solver_names,
)


def add(monkeypatch, **changes):
    entry = {"module": "osqp", "cls": "OSQPSolver", "package": "osqp", "install": "pip install it"}
    monkeypatch.setitem(registry._SOLVERS["qp"], "made_up", registry._Entry(**{**entry, **changes}))


def test_core_solvers_are_available():
    assert {"osqp", "clarabel"} <= set(available_solvers("qp")) <= set(solver_names())
    assert get_solver("osqp").name == "osqp"


def test_solvers_are_listed_by_kind():
    listed = available_solvers()
    assert list(listed) == ["qp", "cone", "smooth"]
    for kind, names in listed.items():
        assert names == available_solvers(kind) and set(names) <= set(solver_names(kind))
        for name in names:
            assert get_solver(name, kind).name == name
    assert {"interior", "clarabel"} <= set(listed["cone"])
    assert listed["smooth"] == ("auto", "sqp", "slsqp", "trust-constr")
    with pytest.raises(ConfigError, match=r"unknown kind of solver 'cones'. Did you mean 'cone'"):
        available_solvers("cones")


@pytest.mark.parametrize("kind", ["qp", "cone", "smooth"])
def test_unknown_settings_are_refused_in_the_same_words(kind):
    for name in set(available_solvers(kind)) - {"auto"}:
        with pytest.raises(ConfigError, match=rf"^{name}: unknown key 'no_such'\."):
            get_solver(name, kind).solve(None, options=SolverOptions(native={"no_such": 1}))


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown solver 'clarabell'. Did you mean 'clarabel'"):
        get_solver("clarabell")
    with pytest.raises(ConfigError, match=r"unknown backward solver 'ktt'. Did you mean 'kkt'"):
        registry.get_backward("ktt")
    with pytest.raises(ConfigError, match=r"unknown solver 'kkt'"):
        get_solver("kkt")


def test_a_missing_package_is_said_with_its_remedy(monkeypatch):
    add(monkeypatch, package="no_such_package")
    with pytest.raises(SolverNotInstalledError, match=r"'no_such_package': pip install it"):
        get_solver("made_up")
    assert "made_up" in solver_names() and "made_up" not in available_solvers("qp")


@pytest.mark.parametrize("error", [ImportError("inner"), KeyError("inner")])
def test_an_error_inside_a_solver_is_not_called_missing(monkeypatch, error):
    def fail():
        raise error

    module = types.ModuleType("bpqp_portfolio.solvers.broken")
    module.Broken = fail
    monkeypatch.setitem(sys.modules, module.__name__, module)
    add(monkeypatch, module="broken", cls="Broken")
    with pytest.raises(type(error), match=r"inner") as caught:
        get_solver("made_up")
    assert not isinstance(caught.value, SolverNotInstalledError)


def test_a_module_that_cannot_be_imported_comes_through(monkeypatch):
    add(monkeypatch, module="not_a_module")
    with pytest.raises(ModuleNotFoundError) as caught:
        get_solver("made_up")
    assert not isinstance(caught.value, SolverNotInstalledError)
