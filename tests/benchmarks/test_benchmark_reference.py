"""The exact gradients of the benchmarks: against 50 digits, closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from benchmarks.instances import Instance, make
from benchmarks.reference import exact

mpmath = pytest.importorskip("mpmath")


def test_agrees_with_fifty_digits():
    instance = make("qp", 10, 5)
    found = exact(instance)
    active = found.lam > 0
    d = instance.data
    C = np.vstack([d["A"], d["G"][active]])
    K = np.block([[d["P"], C.T], [C, np.zeros((len(C), len(C)))]])
    right = np.concatenate([-d["q"], d["b"], d["h"][active]])
    ones = np.concatenate([-np.ones(10), np.zeros(len(C))])
    with mpmath.workdps(50):
        matrix = mpmath.matrix(K.tolist())
        point = np.array(mpmath.lu_solve(matrix, mpmath.matrix(right.tolist())), dtype=float)
        adjoint = np.array(mpmath.lu_solve(matrix, mpmath.matrix(ones.tolist())), dtype=float)
    assert found.z == pytest.approx(point[:10], rel=1e-14, abs=1e-15)
    assert found.nu == pytest.approx(point[10:15], rel=1e-13)
    assert found.dz == pytest.approx(adjoint[:10], rel=1e-13, abs=1e-14)
    assert found.dlam[active] == pytest.approx(adjoint[15:], rel=1e-13)


@pytest.mark.parametrize("kind", ("qp", "lp", "boxlp"))
@pytest.mark.parametrize("seed", range(3))
def test_is_a_strictly_complementary_solution(kind, seed):
    instance = make(kind, 30, 6, seed)
    found, d = exact(instance), instance.rows()
    units = np.abs(found.z).max()
    gradient = d["P"] @ found.z + d["q"] + d["A"].T @ found.nu + d["G"].T @ found.lam
    assert np.abs(gradient).max() <= 1e-12 * max(1.0, np.abs(d["P"] @ found.z).max())
    assert np.abs(d["A"] @ found.z - d["b"]).max() <= 1e-12 * units
    slack = d["h"] - d["G"] @ found.z
    active = found.lam > 0
    assert (found.lam >= 0).all()
    assert np.abs(slack[active]).max(initial=0.0) <= 1e-12 * units
    assert (slack[~active] > 0).all()
    assert found.margin > 0
    assert active.any()


def test_an_lp_in_a_box_is_the_lp():
    d = make("boxlp", 20, 4).data
    result = linprog(d["q"], d["G"], d["h"], d["A"], d["b"], bounds=(0, 1))
    assert exact(make("boxlp", 20, 4)).z == pytest.approx(result.x, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "n", "m"), [("qp", 10, 5), ("lp", 10, 4), ("boxlp", 10, 3), ("socp", 7, 0)]
)
def test_gradient_is_the_slope_of_the_solution(kind, n, m):
    instance = make(kind, n, m)
    found, rng = exact(instance), np.random.default_rng(1)
    step = {k: rng.standard_normal(np.shape(v)) for k, v in instance.data.items()}
    if "P" in step:
        step["P"] = step["P"] @ step["P"].T
    size = {"qp": 1e-6, "lp": 1e-10, "boxlp": 1e-8, "socp": 1e-6}[kind]
    ends = []
    for sign in (1, -1):
        moved = {k: v + sign * size * step[k] for k, v in instance.data.items()}
        ends.append(exact(Instance(kind, n, m, 0, moved)).z.sum())
    slope = (ends[0] - ends[1]) / (2 * size)
    expected = 0.0
    for name, direction in step.items():
        gradient = np.asarray(found.gradient(name))
        if name in ("G", "h"):
            gradient = gradient[: len(direction)]
        expected += float(np.sum(gradient * direction))
    assert expected == pytest.approx(slope, rel=1e-4)


def test_problems_are_reproducible_and_feasible(tmp_path):
    instance = make("qp", 12, 3, seed=4)
    instance.save(tmp_path / "p.npz")
    again, other = Instance.load(tmp_path / "p.npz"), make("qp", 12, 3, seed=5)
    for name, value in make("qp", 12, 3, seed=4).data.items():
        assert np.array_equal(again.data[name], value)
        assert not np.array_equal(other.data[name], value)
    z = np.linalg.lstsq(
        np.vstack([instance.data["A"], instance.data["G"]]),
        np.concatenate([instance.data["b"], instance.data["h"]]),
        rcond=None,
    )[0]
    assert instance.data["G"] @ z == pytest.approx(instance.data["h"])
