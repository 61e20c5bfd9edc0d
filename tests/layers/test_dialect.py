"""All public layers speak one dialect: the same arguments, the same Solution, the same errors."""

from __future__ import annotations

import inspect
from dataclasses import replace

import cvxpy as cp
import pytest
import torch

import bpqp_portfolio as bp

D = torch.float64
P = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 4.0]], dtype=D)
Q = torch.tensor([-1.0, -1.2, 2.5], dtype=D)
ONES, ZERO = torch.ones(1, 3, dtype=D), torch.zeros(3, dtype=D)
SETTINGS = {
    "forward": "auto",
    "backward": "auto",
    "tolerance": 1e-8,
    "max_iterations": None,
    "on_failure": "raise",
    "options": None,
}
DATA = ("P", "q", "A", "b", "G", "h", "lb", "ub")


# min ½zᵀPz + qᵀz over the simplex, by every layer: made with settings, called with q.


def qp(**settings):
    layer = bp.QPLayer(**settings)
    return lambda q, **data: layer.solve(P, q, ONES, ONES[0, :1], lb=ZERO, **data)


def socp(**settings):
    layer, far = bp.SOCPLayer(**settings), [(None, None, None, 100.0)]
    return lambda q, **data: layer.solve(P, q, ONES, ONES[0, :1], lb=ZERO, cones=far, **data)


def smooth(**settings):
    layer = bp.ConvexLayer(
        lambda z, q: 0.5 * z @ P @ z + q @ z, lambda z, _: z.sum(0, True) - 1, lambda z, _: -z,
        batched=(True,), **settings,
    )  # fmt: skip
    return lambda q: layer.solve(torch.full_like(q, 0.3), q)


def from_cvxpy(**settings):
    x, q = cp.Variable(3), cp.Parameter(3, name="q")
    cost = 0.5 * cp.quad_form(x, P.numpy()) + q @ x
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= 0])
    layer = bp.from_cvxpy(problem, [q], [x], **settings)
    return lambda q: layer.solve(q)[1]


LAYERS = {bp.QPLayer: qp, bp.SOCPLayer: socp, bp.ConvexLayer: smooth, bp.from_cvxpy: from_cvxpy}
EACH = pytest.mark.parametrize("make", LAYERS.values(), ids=[k.__name__ for k in LAYERS])
# A named solver of each kind, whose options are known.
NAMED = {qp: "clarabel", socp: "clarabel", smooth: "sqp", from_cvxpy: "clarabel"}
NAMED[bp.PortfolioLayer] = "clarabel"


@pytest.mark.parametrize("layer", [*LAYERS, bp.PortfolioLayer], ids=lambda k: k.__name__)
def test_layers_are_made_with_the_same_arguments(layer):
    given = inspect.signature(layer).parameters
    tolerance = {"tolerance": 1e-10} if layer is bp.PortfolioLayer else {}
    assert {k: given[k].default for k in SETTINGS} == SETTINGS | tolerance
    assert all(given[k].kind is inspect.Parameter.KEYWORD_ONLY for k in list(SETTINGS)[2:])


@pytest.mark.parametrize("layer", [bp.QPLayer, bp.SOCPLayer])
def test_layers_of_programs_are_called_with_the_same_arguments(layer):
    given = inspect.signature(layer.solve).parameters
    assert tuple(given)[1:9] == DATA
    assert list(given)[9:] == [
        k for k in ("cones", "cache") if layer is bp.SOCPLayer or k != "cones"
    ]


@EACH
def test_the_same_solution(make):
    expected = qp()(Q)
    found = make()(Q.clone().requires_grad_())
    assert isinstance(found, bp.Solution)
    assert found.status is bp.SolveStatus.SOLVED and found.message == ""
    torch.testing.assert_close(found.z.detach(), expected.z, rtol=0, atol=1e-9)
    if make is not from_cvxpy:  # whose duals are those of the program that cvxpy makes
        torch.testing.assert_close(found.nu.detach(), expected.nu, rtol=0, atol=1e-8)
    assert float(found.kkt_norm) <= 1e-8 and int(found.iterations) >= 0
    assert found.solver in {
        *bp.available_solvers("qp"),
        *bp.available_solvers("smooth"),
        "interior",
    }


@EACH
def test_a_batch_and_its_gradients_are_the_same(make):
    q = torch.stack([Q, -Q]).requires_grad_()
    found, expected = make()(q), qp()(q)
    assert found.status.tolist() == [bp.SolveStatus.SOLVED] * 2
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)
    grads = [torch.autograd.grad(s.z.sin().sum(), q)[0] for s in (found, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-8)


@EACH
def test_a_failed_item_is_nan_with_its_status_or_an_error(make):
    q = torch.stack([Q, Q * torch.nan]).requires_grad_()
    found = make(on_failure="nan")(q)
    assert found.status.tolist() == [bp.SolveStatus.SOLVED, bp.SolveStatus.BAD_DATA]
    assert found.message[0] == "" and found.message[1]
    assert found.z[1].isnan().all() and torch.isfinite(found.z[0]).all()
    (grad,) = torch.autograd.grad(found.z[0].sum(), q)
    assert (grad[1] == 0).all()
    with pytest.raises(bp.ProblemError, match=r"^item 1: "):
        make()(q)


@pytest.mark.parametrize("make", [*LAYERS.values(), bp.PortfolioLayer], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"forward": "nope"}, r"^unknown solver 'nope'\."),
        ({"backward": "nope"}, r"^unknown backward solver 'nope'\."),
        ({"tolerance": 0.0}, r"^tolerance: must be > 0"),
        ({"tolerance": "tight"}, r"^tolerance: expected a number"),
        ({"max_iterations": 0}, r"^max_iterations: must be >= 1"),
        ({"on_failure": "ignore"}, r"^on_failure: expected 'raise' or 'nan', got 'ignore'"),
        ({"on_failure": ["raise"]}, r"^on_failure: expected 'raise' or 'nan'"),
        ({"options": 3}, r"^options: expected a mapping, got int"),
    ],
)
def test_settings_are_refused_in_the_same_words(make, settings, message):
    with pytest.raises(bp.ConfigError, match=message):
        make(**settings)


@pytest.mark.parametrize("make", NAMED, ids=lambda f: f.__name__)
def test_an_unknown_option_is_refused_by_its_name_when_the_layer_is_made(make):
    with pytest.raises(bp.ConfigError, match=rf"^{NAMED[make]}: unknown key 'nope'\."):
        make(forward=NAMED[make], options={"nope": 1})
    if make is not bp.PortfolioLayer:
        with pytest.raises(bp.ConfigError, match=r"^auto: unknown key 'nope'\."):
            make(options={"nope": 1})


@EACH
def test_too_few_iterations_are_a_status(make):
    found = make(forward=NAMED[make], max_iterations=1, on_failure="nan")(Q)
    assert isinstance(found.status, bp.SolveStatus)
    assert found.status.usable == bool(torch.isfinite(found.z).all())
    assert int(found.iterations) <= 1


@pytest.mark.parametrize("make", [qp, socp, from_cvxpy], ids=lambda f: f.__name__)
def test_shapes_types_and_numbers_are_refused_by_argument(make):
    name = "parameter 'q'" if make is from_cvxpy else "q"
    for bad, message in (
        (Q[:2], rf"^({name}|lb|A|P): expected shape \(\.\.\., "),
        ([1.0, 2.0, 3.0], rf"^{name}: expected a tensor of floating point numbers, got list"),
        (Q.long(), rf"^{name}: expected a tensor of floating point numbers, got torch\.int64"),
        (Q * torch.nan, rf"^{name}: (entry 0 is nan, )?expected (a )?finite number"),
    ):
        with pytest.raises(bp.ProblemError, match=message):
            make()(bad)


def test_an_initial_point_is_refused_as_other_arguments_are():
    layer = bp.ConvexLayer(lambda z: z @ z)
    for bad, message in (
        (Q[0], r"^initial_point: expected shape \(\.\.\., n\)"),
        ([1.0], r"^initial_point: expected a tensor of floating point numbers, got list"),
        (Q * torch.nan, r"^initial_point: entry 0 is nan, expected a finite number"),
    ):
        with pytest.raises(bp.ProblemError, match=message):
            layer(bad)


@pytest.mark.parametrize("forward", ["auto", "structured", "clarabel"])
def test_the_portfolio_layer_is_one_of_them(forward):
    q, B, d = torch.stack([Q, -Q]), torch.tensor([[[0.5], [0.5], [0.0]]] * 2).double(), P.diag()
    d = torch.stack([d, d]) - B[..., 0] ** 2
    layer = bp.PortfolioLayer(forward=forward)
    given = q.clone().requires_grad_()
    found = layer.solve(-given, B, d)
    data = (B @ B.mT + torch.diag_embed(d), q.clone().requires_grad_(), ONES, ONES[0, :1])
    expected = bp.QPLayer(tolerance=1e-10).solve(*data, lb=ZERO)
    torch.testing.assert_close(found.w, expected.z, rtol=0, atol=1e-9)
    assert found.status.tolist() == expected.status.tolist() and not found.failed.any()
    assert found.z is found.w and found.message == ""
    assert found.solver == ("clarabel" if forward == "clarabel" else "structured")
    grads = [
        torch.autograd.grad(w.sin().sum(), x)[0]
        for w, x in ((found.w, given), (expected.z, data[1]))
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-8)
    for bad, message in (
        (-Q, r"^mu: expected shape \(T, n\)"),
        ([1.0], r"^mu: expected a tensor of floating point numbers, got list"),
        (q.long(), r"^mu: expected a tensor of floating point numbers, got torch\.int64"),
        (q * torch.nan, r"^mu: nan "),
    ):
        with pytest.raises(bp.ProblemError, match=message):
            layer.solve(bad, B, d)


@pytest.mark.parametrize("forward", ["auto", "clarabel"])
def test_a_failed_day_of_the_portfolio_layer_has_status_and_message(forward):
    mu = torch.stack([Q, Q * torch.nan, Q])
    mask = torch.tensor([[True] * 3, [True] * 3, [True, False, False]])
    B, d = torch.zeros(3, 3, 0).double(), torch.ones(3, 3).double()
    layer = bp.PortfolioLayer(max_weight=0.6, forward=forward, on_failure="nan")
    found = layer.solve(mu, B, d, mask)
    wanted = [bp.SolveStatus.SOLVED, bp.SolveStatus.BAD_DATA, bp.SolveStatus.PRIMAL_INFEASIBLE]
    assert found.status.tolist() == wanted and found.failed.tolist() == [False, True, True]
    assert found.message[0] == "" and "q: " in found.message[1]
    part = found.days(torch.tensor([1]))
    assert part.message.tolist() == [found.message[1]] and part.status.tolist() == wanted[1:2]


def test_a_mandate_speaks_it_too():
    given = inspect.signature(bp.Mandate).parameters
    assert (given["on_failure"].default, given["tolerance"].default) == ("raise", 1e-10)
    d = torch.tensor([[2.0, 1.0, 4.0]], dtype=D)
    market = bp.Market(
        -Q[None], torch.zeros(1, 3, 0, dtype=D), d, torch.ones(1, 3, dtype=torch.bool)
    )
    found = bp.Mandate(on_failure="raise").solve(market)
    expected = bp.QPLayer().solve(torch.diag(d[0]), Q, ONES, ONES[0, :1], lb=ZERO)
    torch.testing.assert_close(found.w[0], expected.z, rtol=0, atol=1e-9)
    assert found.status[0] is expected.status
    with pytest.raises(bp.ConfigError, match=r"^on_failure: unknown fallback 'ignore'"):
        bp.Mandate(on_failure="ignore")
    with pytest.raises(bp.ConfigError, match=r"^tolerance: must be > 0"):
        bp.Mandate(tolerance=0.0)
    with pytest.raises(bp.SolverError, match="not solved"):
        bp.Mandate(on_failure="raise").forward(replace(market, mu=market.mu * torch.nan))
