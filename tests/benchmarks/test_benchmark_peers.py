"""Every adapter of the benchmarks solves the problem it is timed on, or is known not to."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest

from benchmarks.instances import PARAMETERS, make
from benchmarks.peers import PEERS, build, label
from benchmarks.reference import exact
from benchmarks.worker import compare

SIZES = {"qp": (10, 5), "lp": (10, 4), "boxlp": (10, 3), "socp": (10, 0)}
# Relative error of ∇q, ∇b, ∇h that a method reaches on a small problem; 1e-6 where not named.
ERRORS = {"proxsuite": 1e-4, "cvxpylayers": 1e-4, "altdiff": 2e-2, "qpax": 1e-2}
# What these instances ask too much of; the tables show the errors in brackets.
HARD = {
    "lp": ("authors", "dqp", "proxsuite", "qpth", "cvxpylayers", "altdiff", "unrolled"),
    "boxlp": ("altdiff", "unrolled"),
}
CASES = [(m, k) for m, e in PEERS.items() for k in e.kinds]


def installed(method):
    for name in PEERS[method].distributions:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed; see benchmarks/README.md")


@pytest.mark.parametrize(("method", "kind"), CASES, ids=lambda v: v)
def test_gradient(method, kind):
    installed(method)
    instance = make(kind, *SIZES[kind])
    peer = build(method)
    peer.load(instance)
    try:
        peer.backward(peer.forward())
        found = compare(kind, peer.gradients(), exact(instance))
    except (ArithmeticError, ValueError) as error:
        if method in HARD.get(kind, ()):
            pytest.xfail(f"P = 1e-6 I is beyond this method: {error}")
        raise
    if found["error"] > 1e-3 and method in HARD.get(kind, ()):
        pytest.xfail(f"P = 1e-6 I is beyond this method: relative error {found['error']:.0e}")
    assert found["error"] <= ERRORS.get(method, 1e-6)
    assert found["cosine"] >= 0.999
    if method in ("ours", "authors"):
        assert set(found["by_parameter"]) == set(PARAMETERS[kind])
        assert max(found["by_parameter"].values()) <= 1e-6


@pytest.mark.parametrize("method", PEERS)
def test_a_second_problem_replaces_the_first(method):
    installed(method)
    peer, instances = build(method), [make("qp", 10, 5, seed) for seed in (0, 2)]
    for instance in instances:
        peer.load(instance)
        for _ in range(2):
            peer.backward(peer.forward())
    found = compare("qp", peer.gradients(), exact(instances[1]))
    assert found["error"] <= ERRORS.get(method, 1e-6)


def test_our_own_pairs_are_methods():
    assert label("ours:osqp/kkt") == "ours (osqp/kkt)"
    peer = build("ours:osqp/kkt", eps=1e-6)
    peer.load(make("qp", 10, 5))
    assert peer.layer.forward_name == "osqp"
    assert peer.layer.backward_name == "kkt"
    assert peer.layer.tolerance == 1e-6


def test_comparison_sees_a_wrong_gradient():
    instance = make("qp", 10, 5)
    truth = exact(instance)
    right = {k: truth.gradient(k) for k in PARAMETERS["qp"]}
    assert compare("qp", right, truth)["error"] == 0.0
    wrong = compare("qp", {**right, "b": 1.01 * right["b"]}, truth)
    assert wrong["error"] == pytest.approx(0.01)
    assert wrong["by_parameter"]["q"] == 0.0
    flipped = compare("qp", {k: -v for k, v in right.items()}, truth)
    assert flipped["cosine"] == pytest.approx(-1.0)
    some = compare("qp", {"q": right["q"]}, truth)
    assert set(some["by_parameter"]) == {"q"}
    skew = np.triu(np.ones((10, 10)), 1)
    assert compare("qp", {**right, "P": right["P"] + skew - skew.T}, truth)["by_parameter"][
        "P"
    ] == pytest.approx(0.0, abs=1e-15)
