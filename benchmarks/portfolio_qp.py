"""The structured solver on portfolio QPs: against its peers, by size, by constraints, its accuracy.

    BPQP_REAL_DATA=ARCHIVE_OR_FOLDER python -m benchmarks.portfolio_qp --json FILE --update-docs
    python -m benchmarks.portfolio_qp --quick          # small simulated markets, a minute

Without the variable all days are simulated, and the tables say so. All figures are milliseconds a
day, forward + backward, of a batch of 64 days for us and of single days for the peers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import clarabel
import numpy as np
import torch
from scipy import sparse

import bpqp_portfolio as bp

from .portfolio_days import FORECAST, GROUPS, Days, real, simulated
from .portfolio_peers import METHODS, Timed, name_of
from .render import grid, update

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "benchmarks" / "figures" / "portfolio_qp.png"
PAGE = ROOT / "docs" / "benchmarks" / "portfolio.md"
SIZES = (100, 200, 300, 500, 1000, 2000, 5000)
MARKS = ("<!-- portfolio_qp:begin -->", "<!-- portfolio_qp:end -->")
BATCH, CAP, COST = 64, 0.05, 1e-3
_LARGEST_PEER = 1000  # dense peers need n × n numbers
_REST = {"cvxpylayers": 5000}
_REAL_DAYS = 1000


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.portfolio_qp")
    parser.add_argument("--quick", action="store_true", help="small sizes, a minute")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="repeats of every cell")
    parser.add_argument("--risk-aversion", type=float, default=100.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--update-docs", action="store_true")
    return parser.parse_args(argv)


def ours(days: Days, risk_aversion: float, constrained: str = "plain") -> Any:
    """A call that takes all days forward and backward and returns solution and gradient."""
    options: dict[str, Any] = {}
    previous = None
    layer = bp.PortfolioLayer(risk_aversion)
    if constrained != "plain":
        layer = bp.PortfolioLayer(risk_aversion, CAP)
    if constrained == "all":
        options |= {"G": days.groups, "h": days.limits()}
        arguments = (days.before, days.loadings, days.specific, days.mask)
        previous = layer.solve(*arguments, **options).w
        layer = bp.PortfolioLayer(risk_aversion, CAP, turnover_cost=COST)

    def run() -> tuple[Any, torch.Tensor]:
        mu = days.mu.clone().requires_grad_()
        solution = layer.solve(mu, days.loadings, days.specific, days.mask, previous, **options)
        (solution.w * days.loss).sum().backward()
        return solution, mu.grad

    return run


def milliseconds(runs: dict[str, Any], rounds: int, days: int) -> dict[str, float]:
    """Median milliseconds a day of each run, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(values)) / days for name, values in times.items()}


def against_peers(days: Days, gamma: float, rounds: int, methods: tuple[str, ...]) -> dict:
    """Ours and every peer on the same days, their calls interleaved."""
    count = min(rounds, len(days.mu))
    run = ours(days, gamma)
    gradient = -run()[1]
    peers = [Timed(method, days, gamma, count) for method in methods]
    chosen = np.linspace(0, len(days.mu) - 1, count).astype(int)
    times = []
    for number in range(count):
        times.append(milliseconds({"ours": run}, 1, len(days.mu))["ours"])
        t = chosen[number]
        truth = gradient[t][days.mask[t]].numpy()
        for peer in peers:
            peer.turn(number, truth)
    cells = {"ours": {"ms": float(np.median(times)), "calls": len(times), "gradient_error": 0.0}}
    return cells | {peer.method: peer.cell() for peer in peers}


def exponent(times: dict[int, float]) -> float:
    """Slope of log time on log n by least squares."""
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def clarabel_weights(q: np.ndarray, B: np.ndarray, d: np.ndarray) -> np.ndarray:
    """w of min ½‖x‖² + ½ wᵀdiag(d)w + qᵀw, x = Bᵀw, 1ᵀw = 1, w ≥ 0 at 1e-12."""
    n, k = B.shape
    unit = max(float(np.abs(q).max()), float(d.max()))
    P = sparse.diags(np.concatenate([d, np.ones(k)]) / unit, format="csc")
    budget = np.concatenate([np.ones(n), np.zeros(k)])[None]
    rows = [np.hstack([B.T, -np.eye(k)]), budget, np.hstack([-np.eye(n), np.zeros((n, k))])]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = 1e-12
    cones = [clarabel.ZeroConeT(k + 1), clarabel.NonnegativeConeT(n)]
    right = np.concatenate([np.zeros(k), [1.0], np.zeros(n)])
    cost = np.concatenate([q / unit, np.zeros(k)])
    A = sparse.csc_matrix(np.vstack(rows))
    return np.asarray(clarabel.DefaultSolver(P, cost, A, right, cones, settings).solve().x)[:n]


def settled(
    q: np.ndarray, B: np.ndarray, d: np.ndarray, w: np.ndarray, r: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """w and ∇q by dense KKT systems on the names that ``w`` holds, and if that is optimal."""
    n = len(q)
    held = w > 1e-7
    F = np.flatnonzero(held)
    m = len(F)
    kkt = np.zeros((m + 1, m + 1))
    kkt[:m, :m] = B[F] @ B[F].T + np.diag(d[F])
    kkt[:m, m] = kkt[m, :m] = 1.0
    both = np.column_stack([np.append(-q[F], 1.0), np.append(-r[F], 0.0)])
    both = np.linalg.solve(kkt, both)
    w, z = np.zeros(n), np.zeros(n)
    w[F], z[F] = both[:m, 0], both[:m, 1]
    slope = B @ (B.T @ w) + d * w + q + both[m, 0]
    sound = w[F].min() > 1e-9 and slope[~held].min(initial=1.0) > 1e-12 * np.abs(q).max()
    return w, z, bool(sound)


def distance(q: np.ndarray, B: np.ndarray, d: np.ndarray, w: np.ndarray) -> float:
    """A bound on max |w − w*|, whoever found ``w`` ≥ 0, in extended precision; wants d > 0.

    w is exactly optimal for q + ρ, where ρ takes away the gradient of names held and what points
    outwards at the others. Subtracting the two optimality conditions, Σ dᵢΔᵢ² ≤ −ρᵀΔ for the
    difference Δ of the optima, hence maxᵢ √dᵢ |Δᵢ| ≤ (Σ ρᵢ²/dᵢ)^½.
    """
    q, B, d, w = (value.astype(np.longdouble) for value in (q, B, d, w))
    total = w.sum()
    w = w / total
    gradient = B @ (B.T @ w) + d * w + q
    held = gradient[w > 0]
    gradient = gradient - (held.max() + held.min()) / 2
    rho = np.where(w > 0, gradient, np.minimum(gradient, 0.0))
    return float(np.sqrt((rho**2 / d).sum() / d.min()) + abs(total - 1) * w.max())


def accuracy(days: Days, gamma: float) -> dict[str, Any]:
    """Largest errors against Clarabel, μ of sizes 0.001 to 100, by powers of ten."""
    sizes = torch.logspace(-3, 2, 6, dtype=torch.float64)[torch.arange(len(days.mu)) % 6]
    mu = (days.mu / FORECAST * sizes.unsqueeze(-1)).requires_grad_()
    layer = bp.PortfolioLayer(gamma)
    solution = layer.solve(mu, days.loadings, days.specific, days.mask)
    (solution.w * days.loss).sum().backward()
    direct, proved, weights, gradients, unclear = 0.0, 0.0, 0.0, 0.0, 0
    for t in range(len(mu)):
        inside = days.mask[t]
        q = -mu[t][inside].detach().numpy()
        B = days.loadings[t][inside].numpy() * gamma**0.5
        d = days.specific[t][inside].numpy() * gamma
        peer = clarabel_weights(q, B, d)
        w = solution.w[t][inside].detach().numpy()
        direct = max(direct, float(np.abs(w - peer).max()))
        proved = max(proved, distance(q, B, d, w))
        exact, z, sound = settled(q, B, d, peer, days.loss[t][inside].numpy())
        if not sound:
            unclear += 1
            continue
        weights = max(weights, float(np.abs(w - exact).max()))
        scale = float(np.linalg.norm(z)) if (exact > 0).sum() > 1 else 1.0
        error = np.linalg.norm(-mu.grad[t][inside].numpy() - z) / scale
        gradients = max(gradients, float(error))
    return {
        "days": len(mu),
        "clarabel": direct,
        "proved": proved,
        "weights": weights,
        "gradient": gradients,
        "unclear": unclear,
        "kkt": float(solution.kkt_norm.max()),
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    gamma, rounds = options.risk_aversion, options.rounds
    sizes: tuple[int, ...] = (20, 40) if options.quick else SIZES
    batch = 8 if options.quick else BATCH
    path = os.environ.get("BPQP_REAL_DATA")
    market = "simulated, 300 names"
    if path and not options.quick:
        many = Days.of(*real(Path(path).expanduser(), _REAL_DAYS))
        market = "real CSI 300"
    else:
        many = Days.of(*simulated(20 if options.quick else 300, 40 if options.quick else 300))
    few = torch.linspace(0, len(many.mu) - 1, batch).long()
    days = Days(*(getattr(many, f)[few] for f in many.__dataclass_fields__))
    report: dict[str, Any] = {
        "meta": {
            "date": datetime.date.today().isoformat(),
            "cpu": processor(),
            "threads": options.threads,
            "market": market,
            "names": float(days.mask.sum(-1).double().mean()),
            "batch": batch,
            "risk_aversion": gamma,
        }
    }
    methods = ("authors",) if options.quick else METHODS
    report["peers"] = against_peers(days, gamma, rounds, methods)
    runs = {kind: ours(days, gamma, kind) for kind in ("plain", "cap", "all")}
    report["constraints"] = milliseconds(runs, rounds, batch)
    report["sizes"] = {}
    for n in sizes:
        now = Days.of(*simulated(batch, n))
        able = tuple(m for m in methods if n <= _REST.get(m, _LARGEST_PEER))
        report["sizes"][str(n)] = against_peers(now, gamma, min(rounds, 7), able)
    report["exponent"] = exponent({int(n): c["ours"]["ms"] for n, c in report["sizes"].items()})
    report["accuracy"] = accuracy(many, gamma)
    return report


def text(report: dict[str, Any]) -> str:
    """The block between the markers of the page."""
    meta, cells = report["meta"], report["peers"]
    columns = list(report["sizes"])
    methods = list(cells)

    def figure_of(cell: dict[str, Any] | None) -> str:
        if cell is None:
            return ""
        if "problem" in cell:
            return cell["problem"].replace("|", "/")
        ms = f"{cell['ms']:.3g}"
        return ms if cell["gradient_error"] < 1e-2 else f"({ms})"

    label = {m: "ours" if m == "ours" else name_of(m) for m in methods}
    own = cells["ours"]["ms"]
    body = []
    for m in methods:
        times = "" if "problem" in cells[m] else f"{cells[m]['ms'] / own:.0f}"
        row = [label[m], figure_of(cells[m]), times]
        body.append([*row, *(figure_of(report["sizes"][n].get(m)) for n in columns)])
    header = ["ms a day", f"{meta['market']}, n = {meta['names']:.0f}", "× ours"]
    table = grid([*header, *(f"simulated n = {n}" for n in columns)], body)
    kinds = report["constraints"]
    errors = report["accuracy"]
    return (
        f"Median milliseconds, forward + backward, of one day's max μᵀw − (γ/2) wᵀΣw, 1ᵀw = 1, "
        f"w ≥ 0; k = 10, γ = {meta['risk_aversion']:g}, μ of size {FORECAST:g}. Ours in batches of "
        f"{meta['batch']} days, the peers day by day. {meta['date']}, {meta['cpu']}, "
        f"{meta['threads']} threads. Brackets: a gradient in μ more than 1 % off.\n\n{table}\n\n"
        f"- Time grows as n^{report['exponent']:.2f} (fitted from n = {columns[0]} to "
        f"{columns[-1]}).\n"
        f"- {meta['market']}: plain {kinds['plain']:.2f} ms; with w ≤ {CAP:g} {kinds['cap']:.2f} "
        f"ms; with that, {GROUPS} group limits and an L1 cost of {COST:g} {kinds['all']:.2f} ms "
        f"({kinds['all'] / kinds['plain']:.1f} × plain).\n"
        f"- Accuracy on {errors['days']} days, μ of sizes 0.001 to 100: weights proved within "
        f"{errors['proved']:.0e} of the optimum (the gradient left over, divided by the least "
        f"specific variance, in extended precision). Clarabel's at 1e-12 are up to "
        f"{errors['clarabel']:.0e} away from them, which is Clarabel's error; the optimum on the "
        f"names that it holds is within {errors['weights']:.0e}. Gradients within "
        f"{errors['gradient']:.0e} of dense KKT systems; "
        f"KKT norm at most {errors['kkt']:.0e}. {errors['unclear']} days had names too near to a "
        f"kink to compare gradients.\n"
    )


def figure(report: dict[str, Any], path: Path) -> None:
    """Milliseconds a day against n, both axes logarithmic, on simulated markets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = report["sizes"]
    methods = list(dict.fromkeys(m for cells in sizes.values() for m in cells))
    picture, axis = plt.subplots(figsize=(8.2, 4.8), layout="constrained")
    colours = plt.get_cmap("tab10")
    ends = []
    for i, method in enumerate(methods):
        points = [(int(n), c[method]["ms"]) for n, c in sizes.items() if "ms" in c.get(method, {})]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        mine = method == "ours"
        name = "bpqp_portfolio" if mine else name_of(method)
        axis.plot(x, y, "o-", color=colours(i), lw=2.8 if mine else 1.3, ms=6 if mine else 4)
        ends.append([np.log10(y[-1]), x[-1], name, colours(i), mine])
    n = np.array([int(v) for v in sizes])
    first = sizes[str(n[0])]["ours"]["ms"]
    axis.plot(n, first * n / n[0], ":", color="grey", lw=1, zorder=0)
    axis.text(n[-1], first * n[-1] / n[0], " ∝ n", color="grey", va="bottom", fontsize=9)
    ends.sort(key=lambda end: (end[1], end[0]))
    for place, (height, x, name, colour, mine) in enumerate(ends):
        same = [e for e in ends[:place] if e[1] == x]
        if same:
            height = max(height, same[-1][0] + 0.17)
            ends[place][0] = height
        axis.annotate(
            name,
            (x, 10**height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=10 if mine else 9,
            fontweight="bold" if mine else "normal",
        )
    axis.set(xscale="log", yscale="log", xlabel="names n", xlim=(0.9 * n[0], 4.5 * n[-1]))
    axis.set_xticks(n, [str(v) for v in n])
    axis.minorticks_off()
    axis.set_ylabel("ms a day, forward + backward")
    axis.set_title("One day's portfolio QP, long only, ten factors", loc="left")
    axis.grid(alpha=0.25, which="major")
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=140)
    plt.close(picture)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    report = measure(options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    print(text(report))
    if options.figure or options.update_docs:
        figure(report, options.figure or FIGURE)
    if options.update_docs:
        update(PAGE, text(report), MARKS)


if __name__ == "__main__":
    main()
