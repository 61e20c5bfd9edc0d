"""What a report looks like: the block of docs/benchmarks, all tables in full, and the picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .peers import label

BEGIN, END = "<!-- paper_tables:begin -->", "<!-- paper_tables:end -->"
TITLES = {
    "qp": "QP",
    "lp": "LP, ε = 1e-6",
    "boxlp": "LP in a box",
    "socp": "SOCP",
    "large": "large QP",
}
# A gradient further from the exact one than this is shown in brackets and is nobody's rival.
_ACCEPTED = 1e-3

Cells = dict[str, dict[str, Any]]


def milliseconds(seconds: float) -> str:
    """Milliseconds with three figures, in seconds from 10 s on."""
    if seconds >= 10:
        return f"{seconds:.0f} s"
    ms = 1000 * seconds
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def cell_text(cell: dict[str, Any] | None) -> str:
    """A cell of the compact table: time, brackets around a wrong gradient, or why there is none."""
    if cell is None:
        return ""
    if "problem" in cell:
        return short(cell["problem"])
    text = milliseconds(cell["total"])
    return text if cell["error"] <= _ACCEPTED else f"({text})"


def short(problem: str) -> str:
    """The last line of an error, cut to fit a cell."""
    line = problem.strip().splitlines()[-1].replace("|", "/")
    return line if len(line) <= 48 else line[:47] + "…"


def accepted(cell: dict[str, Any] | None) -> bool:
    """Whether a cell has a time and a gradient that is not wrong."""
    return cell is not None and "problem" not in cell and cell["error"] <= _ACCEPTED


def rivals(row: Cells) -> dict[str, float]:
    """Total seconds of the peers with an accepted gradient; the inverse rides on our forward."""
    return {
        m: c["total"]
        for m, c in row.items()
        if m.partition(":")[0] not in ("ours", "inverse") and accepted(c)
    }


def ratio(row: Cells, method: str | None) -> str:
    """How many times our time a method's is; None takes the fastest peer."""
    ours = row.get("ours")
    if not accepted(ours):
        return ""
    if method is None:
        others = rivals(row)
        if not others:
            return ""
        method = min(others, key=others.__getitem__)
        return f"{others[method] / ours['total']:.1f} ({method})"
    cell = row.get(method, {})
    if "total" in cell:
        return f"{cell['total'] / ours['total']:.1f}"
    return f"> {cell['at_least'] / ours['total']:.0f}" if "at_least" in cell else ""


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def grid(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join([_line(*header), _line(*["---"] * len(header)), *(_line(*r) for r in rows)])


def _methods(tables: dict[str, dict[str, Cells]]) -> list[str]:
    return list(dict.fromkeys(m for t in tables.values() for row in t.values() for m in row))


def _times(tables: dict[str, dict[str, Cells]]) -> str:
    """Methods down, sizes across, then the ratios."""
    columns = [(t, size) for t, rows in tables.items() for size in rows]
    header = ["ms", *(f"{TITLES[t]} {size}" for t, size in columns)]
    body = [
        [label(m), *(cell_text(tables[t][size].get(m)) for t, size in columns)]
        for m in _methods(tables)
    ]
    for name, method in (
        ("fastest peer / ours", None),
        ("authors' way / ours", "authors"),
        ("cvxpylayers / ours", "cvxpylayers"),
    ):
        body.append([f"*{name}*", *(ratio(tables[t][size], method) for t, size in columns)])
    return grid(header, [row for row in body if any(row[1:])])


def compact(report: dict[str, Any]) -> str:
    """The page's tables: times and ratios, accuracy, the batch and the overhead."""
    tables, parts = report["tables"], [_conditions(report)]
    for group in (("qp",), ("large",), ("lp", "boxlp"), ("socp",)):
        chosen = {t: tables[t] for t in group if tables.get(t)}
        if chosen:
            parts.append(_times(chosen))
    if tables:
        parts.append(
            "A time in brackets belongs to a gradient whose relative error exceeds "
            f"{_ACCEPTED:g}; it is left out of the ratios with the fastest peer."
        )
    parts += [text for text in (_accuracy(report), _tolerance(report), _own(report)) if text]
    return "\n\n".join(parts) + "\n"


def _conditions(report: dict[str, Any]) -> str:
    m = report["meta"]
    return (
        "Median milliseconds, forward + backward, of one problem with n variables, m equalities "
        f"and m inequalities (n×m), gradients in all parameters. {m['date']}, {m['cpu']}, "
        f"{m['threads']} threads, Python {m['python']}; every method at the accuracy that "
        "[its settings](setup.md) name."
    )


def _accuracy(report: dict[str, Any]) -> str:
    """Cosine and relative error of the gradients at 100x20, or the largest small size there is."""
    rows = report["tables"].get("qp", {})
    if not rows:
        return ""
    size = "100x20" if "100x20" in rows else list(rows)[-1]
    body = []
    for method, cell in rows[size].items():
        if "problem" in cell:
            continue
        worst = max(cell["by_parameter"], key=cell["by_parameter"].__getitem__)
        error = cell["by_parameter"][worst]
        note = f" ({error:.0e} in {worst})" if error > 10 * cell["error"] else ""
        body.append([label(method), f"{cell['cosine']:.9f}", f"{cell['error']:.0e}{note}"])
    header = [f"gradient, QP {size}", "cosine", "relative error"]
    return grid(header, body)


def _tolerance(report: dict[str, Any]) -> str:
    found = report.get("tolerance")
    if not found:
        return ""
    header = [f"relative error, QP {found['size']}, by forward tolerance"]
    header += list(next(iter(found["cells"].values())))
    body = []
    for method, cells in found["cells"].items():
        texts = (
            short(c["problem"]) if "problem" in c else f"{c['error']:.0e}" for c in cells.values()
        )
        body.append([label(method), *texts])
    return grid(header, body)


def _own(report: dict[str, Any]) -> str:
    """Batch and overhead, in words."""
    lines = []
    batch = report.get("batch", {})
    if "one call" in batch:
        one, single = batch["one call"]["median"], batch["single calls"]["median"]
        lines.append(
            f"- {batch['items']} QPs of {batch['size']}: {milliseconds(one)} ms in one call, "
            f"{milliseconds(single)} ms in single calls ({single / one:.1f} times as much)."
        )
    elif "problem" in batch:
        lines.append(f"- Batch: {short(batch['problem'])}.")
    for size, cell in report.get("overhead", {}).items():
        if "problem" in cell:
            lines.append(f"- Overhead: {short(cell['problem'])}.")
            continue
        solver, layer, bare = (1000 * cell[k]["median"] for k in ("solver", "layer", "no_grad"))
        lines.append(
            f"- Forward at {size}: solver ({cell['chosen']}) {solver:.2f} ms, layer {layer:.2f} ms "
            f"({layer - solver:+.2f}), under no_grad {bare:.2f} ms ({bare - solver:+.2f})."
        )
    return "\n".join(lines)


def full(report: dict[str, Any]) -> str:
    """The compact tables and every figure behind them."""
    parts = [compact(report)]
    for table, rows in report["tables"].items():
        header = ["method", "forward", "backward", "total", "quartiles", "calls", "cosine"]
        header += ["error", "errors by parameter", "peak GB"]
        for size, row in rows.items():
            body = []
            for method, cell in row.items():
                if "problem" in cell:
                    body.append(
                        [label(method), cell["problem"].replace("\n", " ").replace("|", "/")]
                    )
                    body[-1] += [""] * (len(header) - 2)
                    continue
                low, high = map(milliseconds, cell["iqr"])
                parameters = ", ".join(f"{k} {v:.0e}" for k, v in cell["by_parameter"].items())
                peak = cell["memory_gb"]
                body.append(
                    [
                        label(method),
                        *(milliseconds(cell[k]) for k in ("forward", "backward", "total")),
                        f"{low} to {high}",
                        str(cell["calls"]),
                        f"{cell['cosine']:.9f}",
                        f"{cell['error']:.0e}",
                        parameters,
                        "" if peak is None else f"{peak:.2f}",
                    ]
                )
            parts.append(f"### {TITLES[table]} {size}\n\n" + grid(header, body) + "\n")
    versions = ", ".join(f"{k} {v}" for k, v in report["meta"]["versions"].items())
    parts.append(f"Versions: {versions}.\n")
    return "\n".join(parts)


def figure(report: dict[str, Any], path: Path) -> None:
    """Total time against n, one panel for each kind of problem, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = {"qp": ("qp", "large"), "lp": ("lp",), "boxlp": ("boxlp",), "socp": ("socp",)}
    panels = {k: v for k, v in panels.items() if any(report["tables"].get(t) for t in v)}
    methods = _methods(report["tables"])
    colours = plt.get_cmap("tab20" if len(methods) > 10 else "tab10")
    picture, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 5.2), squeeze=False, layout="constrained"
    )
    for axis, (kind, names) in zip(axes[0], panels.items(), strict=True):
        rows = {s: r for t in names for s, r in report["tables"].get(t, {}).items()}
        for i, method in enumerate(methods):
            points = sorted(
                (int(size.partition("x")[0]), row[method]["total"], accepted(row[method]))
                for size, row in rows.items()
                if "total" in row.get(method, {})
            )
            if not points:
                continue
            ours = method.startswith("ours")
            axis.plot(
                *zip(*(p[:2] for p in points), strict=True),
                color=colours(i),
                lw=2.6 if ours else 1.2,
                zorder=3 if ours else 2,
            )
            for x, y, ok in points:
                fill = colours(i) if ok else "white"
                axis.plot(x, y, "o", ms=5, color=colours(i), markerfacecolor=fill, zorder=3)
        axis.set(xscale="log", yscale="log", title=TITLES[kind], xlabel="variables n")
        axis.grid(alpha=0.25, which="major")
    axes[0][0].set_ylabel("forward + backward, seconds")
    handles = [
        plt.Line2D([], [], color=colours(i), marker="o", ms=5, label=label(m))
        for i, m in enumerate(methods)
    ]
    handles.append(
        plt.Line2D(
            [],
            [],
            ls="",
            marker="o",
            ms=5,
            color="grey",
            markerfacecolor="white",
            label=f"gradient error > {_ACCEPTED:g}",
        )
    )
    picture.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(2 * len(panels), len(handles)),
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=130)
    plt.close(picture)


def update(page: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the markers of a file; ValueError where they are missing."""
    begin, end = marks
    old = page.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise ValueError(f"{page}: expected one {begin} before one {end}")
    head, rest = old.split(begin)
    tail = rest.split(end)[1]
    partial = page.with_suffix(".partial")
    partial.write_text(f"{head}{begin}\n{text}{end}{tail}", encoding="utf-8")
    os.replace(partial, page)
