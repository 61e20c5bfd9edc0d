"""ConvexLayer at local optima, early-stopped and primal points, and where it must fail."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from bpqp_portfolio import ConfigError, ConvexLayer, ProblemError, SolverError, SolveStatus
from bpqp_portfolio.solvers.registry import available_solvers

F64 = torch.float64
N = 12


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def convex(z, q, P):
    return 0.5 * z @ P @ z + q @ z


def waves(z, q, P):
    return convex(z, q, P) + 0.5 * torch.cos(3 * z).sum()


def budget(z, *_):
    return (z.sum() - 1).reshape(1)


def floor_and_ball(z, *_):
    return torch.cat([-z - 0.2, (z @ z - 1).reshape(1)])


def data(seed=0):
    X = rand(N, N, seed=seed) / N**0.5
    P = X @ X.mT + 0.2 * torch.eye(N, dtype=F64)
    return rand(N, seed=seed + 100).requires_grad_(), P.requires_grad_()


START = torch.full((N,), 1 / N, dtype=F64)


def multipliers(steps, *, duals=True):
    """A forward solver to be stopped early: gradient steps, a multiplier step after every fifth."""

    def forward(program, start):
        z, nu, lam, rho = start.copy(), np.zeros(program.p), np.zeros(program.m), 10.0
        curvature = np.linalg.norm(program.hessian(z, nu, lam), 2)
        size = 1 / (curvature + rho * (program.n + 4))
        for step in range(steps):
            force_h = program.jacobian_h(z).T @ (nu + rho * program.h(z))
            force_g = program.jacobian_g(z).T @ np.maximum(lam + rho * program.g(z), 0)
            z = z - size * (program.gradient(z) + force_h + force_g)
            if step % 5 == 4:
                nu, lam = nu + rho * program.h(z), np.maximum(lam + rho * program.g(z), 0)
        return (z, nu, lam) if duals else z

    return forward


def solution_and_gradient(objective, forward, parameters):
    s = ConvexLayer(objective, budget, floor_and_ball, forward=forward).solve(START, *parameters)
    gradients = torch.autograd.grad(s.z @ rand(N, seed=7), parameters)
    return s, torch.cat([g.reshape(-1) for g in gradients])


@pytest.mark.parametrize("forward", ["sqp", "slsqp"])
def test_finite_differences_at_a_local_optimum(forward):
    q, P = data()
    layer = ConvexLayer(waves, budget, floor_and_ball, forward=forward)
    s = layer.solve(START, q, P)
    program_is_convex = torch.linalg.eigvalsh(P - 4.5 * torch.diag(torch.cos(3 * s.z)))[0] > 0
    assert not program_is_convex and (s.lam > 0.1).sum() >= 3 and s.status is SolveStatus.SOLVED
    weights = rand(N, seed=7), rand(1, seed=8), rand(N + 1, seed=9)

    def loss(q, P):
        s = layer.solve(START, q, P)
        return sum(w @ v for w, v in zip(weights, (s.z, s.nu, s.lam), strict=True))

    gradients = torch.autograd.grad(loss(q, P), (q, P))
    with torch.no_grad():
        for seed in range(3):
            dq, dP = rand(N, seed=20 + seed), rand(N, N, seed=30 + seed)
            dP = dP + dP.mT
            change = loss(q + 1e-5 * dq, P + 1e-5 * dP) - loss(q - 1e-5 * dq, P - 1e-5 * dP)
            exact = (gradients[0] * dq).sum() + (gradients[1] * dP).sum()
            torch.testing.assert_close(change / 2e-5, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("duals", [True, False], ids=["primal-dual", "primal only"])
@pytest.mark.parametrize("objective", [convex, waves])
def test_early_stopped_gradients_improve_with_the_kkt_norm(objective, duals):
    """1 − cos falls like the KKT norm squared once the active set is right; measured: at most
    1600 times that."""
    parameters = data()
    exact, gradient = solution_and_gradient(objective, "sqp", parameters)
    norms, gaps = [], []
    for steps in (200, 500, 1000):
        s, found = solution_and_gradient(objective, multipliers(steps, duals=duals), parameters)
        norms.append(s.kkt_norm.item())
        gaps.append(1 - (found @ gradient / found.norm() / gradient.norm()).item())
    assert exact.kkt_norm < 1e-12
    assert all(b < 0.5 * a for a, b in pairwise(norms))
    assert all(b < 0.5 * a for a, b in pairwise(gaps))
    assert norms[0] > 1e-4 and norms[-1] < 1e-4
    for norm, gap in zip(norms, gaps, strict=True):
        assert gap <= 5000 * norm**2 + 1e-12


def test_an_exact_primal_point_alone_has_the_full_gradient():
    parameters = data()
    full, gradient = solution_and_gradient(waves, "sqp", parameters)
    point = full.z.detach()
    for forward in (lambda program, start: point, lambda program, start: point.numpy()):
        s, found = solution_and_gradient(waves, forward, parameters)
        torch.testing.assert_close((s.nu, s.lam), (full.nu, full.lam), rtol=0, atol=1e-10)
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-9)
        assert s.status is SolveStatus.SOLVED and s.kkt_norm < 1e-10


def test_a_callables_point_is_never_changed_nor_refused():
    q, P = data()
    far = rand(N, seed=3)
    s = ConvexLayer(convex, budget, floor_and_ball, forward=lambda *_: far).solve(START, q, P)
    assert torch.equal(s.z, far) and s.status is SolveStatus.INACCURATE and s.kkt_norm > 1e-2
    assert s.solver == "<lambda>"
    (gradient,) = torch.autograd.grad(s.z.sum(), q)
    assert torch.isfinite(gradient).all()
    for on_failure in ("raise", "nan"):
        layer = ConvexLayer(convex, forward=lambda *_: far / 0, on_failure=on_failure)
        if on_failure == "raise":
            with pytest.raises(SolverError, match="<lambda>: 1 of 1 problems not solved"):
                layer(START, q, P)
        else:
            s = layer.solve(START, q, P)
            assert s.z.isnan().all() and s.status is SolveStatus.ITERATION_LIMIT
            assert not torch.autograd.grad(s.z.sum(), q)[0].any()


def test_failed_items_leave_the_others_untouched():
    """Item 1 has no feasible point, item 2 starts where the logarithm is not defined."""

    def objective(z, c, low):
        return c @ z - torch.log(z).sum()

    def inequalities(z, c, low):
        return torch.cat([low - z, z - 1])

    c = (rand(3, 4) + 2).requires_grad_()
    low = torch.tensor([0.1, 2.0, 0.1], dtype=F64).reshape(3, 1).expand(3, 4)
    start = torch.full((3, 4), 0.5, dtype=F64)
    start[2] = -1.0
    options = {"inequalities": inequalities, "batched": (True, True)}
    s = ConvexLayer(objective, on_failure="nan", **options).solve(start, c, low)
    assert list(s.status) == [
        SolveStatus.SOLVED,
        SolveStatus.ITERATION_LIMIT,
        SolveStatus.BAD_DATA,
    ]
    assert s.z[0].isfinite().all() and s.z[1:].isnan().all() and s.lam[1:].isnan().all()
    gradient = torch.autograd.grad(torch.nan_to_num(s.z).sum(), c)[0]
    alone = c[0].detach().requires_grad_()
    z = ConvexLayer(objective, inequalities=inequalities)(start[0], alone, low[0])
    torch.testing.assert_close(gradient[0], torch.autograd.grad(z.sum(), alone)[0])
    assert not gradient[1:].any()
    with pytest.raises(ProblemError, match="item 2: objective: its value is not finite"):
        ConvexLayer(objective, **options).solve(start, c, low)
    with pytest.raises(SolverError, match="auto: 1 of 2 problems not solved: item 1: stopped"):
        ConvexLayer(objective, **options).solve(start[:2], c[:2], low[:2])


HIDDEN = torch.ones(2, dtype=F64, requires_grad=True)


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"objective": lambda z, c: z * c}, r"objective: expected a scalar, got shape \(2,\)"),
        ({"objective": lambda z, c: (z @ z).item()}, "objective: expected a torch tensor, got flo"),
        ({"objective": lambda z, c: (z @ z).detach()}, "objective: the result is cut off from z"),
        ({"equalities": lambda z, c: z.sum()}, "equalities: expected one dimension"),
        ({"inequalities": lambda z, c: z[:, None]}, "inequalities: expected one dimension"),
        ({"inequalities": lambda z, c: z.detach()}, "inequalities: the result is cut off from z"),
        ({"objective": lambda z, c: z @ z + HIDDEN @ z}, "objective: depends on a tensor that re"),
        ({"equalities": lambda z, c: HIDDEN * z}, "equalities: depends on a tensor that requires"),
        (
            {"objective": lambda z, c: OnceOnly.apply(z).sum()},
            "objective: its first derivative depends on z",
        ),
    ],
)
def test_unusable_callables_are_named(functions, message):
    functions = {"objective": lambda z, c: z @ z + c @ z, **functions}
    with pytest.raises(ProblemError, match=message):
        ConvexLayer(**functions)(torch.ones(2, dtype=F64), torch.ones(2, dtype=F64))


def test_an_error_inside_a_callable_says_how_it_was_called():
    with pytest.raises(RuntimeError) as caught:
        ConvexLayer(lambda z, c: z @ c)(torch.ones(2), torch.ones(3))
    assert "objective was called with z (2,) and parameters of shapes (3,)" in str(
        caught.value.__notes__
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], torch.ones(2)), "initial_point: expected a tensor of floating point"),
        ((torch.tensor(1.0), torch.ones(2)), "initial_point: expected shape"),
        ((torch.ones(2), 3.0), "parameter 0: expected a tensor, got float"),
        ((torch.ones(5, 2), torch.ones(5, 2)), r"batched=\(True,\)"),
        (
            (torch.ones(2, device="meta"), torch.ones(2)),
            "parameter 0 is on cpu, initial_point on meta",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ProblemError, match=message):
        ConvexLayer(lambda z, c: z @ z)(*arguments)


def test_batched_must_fit():
    layer = ConvexLayer(lambda z, c: c @ z + z @ z, batched=(True,))
    with pytest.raises(ProblemError, match=r"parameter 0: expected the batch dimensions \(5,\)"):
        layer(torch.ones(5, 2), torch.ones(4, 2))
    with pytest.raises(ProblemError, match="batched has 1 entries for 2 parameters"):
        layer(torch.ones(5, 2), torch.ones(5, 2), torch.ones(5))


def test_items_must_have_the_same_number_of_constraints():
    layer = ConvexLayer(lambda z, k: z @ z, inequalities=lambda z, k: z[: int(k)], batched=(True,))
    with pytest.raises(ProblemError, match="item 1: the number of constraints differs"):
        layer(torch.ones(2, 3), torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forward": "slsq"}, "unknown solver 'slsq'. Did you mean 'slsqp'"),
        ({"forward": "sqp", "options": {"maxit": 3}}, "unknown key 'maxit'. Did you mean"),
        (
            {"forward": lambda *_: 0, "options": {"maxiter": 3}},
            "unknown key 'maxiter'. It takes no options",
        ),
        ({"backward": "kk"}, "unknown backward solver"),
        ({"tolerance": 0}, "tolerance: must be > 0"),
        ({"equalities": 3}, "equalities: expected a callable"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ConvexLayer(lambda z: z @ z, **settings)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros(3), r"expected z of shape \(2,\), got \(3,\)"),
        ((np.zeros(2), np.zeros(1)), "expected z or"),
        ((np.zeros(2), np.zeros(0), np.zeros(1)), r"expected lam of shape \(0,\)"),
    ],
)
def test_a_callables_result_is_checked(result, message):
    with pytest.raises(SolverError, match=message):
        ConvexLayer(lambda z: z @ z, forward=lambda *_: result)(torch.ones(2))


def test_iterations_and_solver_are_reported():
    for name in available_solvers("smooth"):
        s = ConvexLayer(convex, budget, forward=name).solve(START, *data())
        assert s.solver == ("sqp" if name == "auto" else name) and s.iterations >= 1
