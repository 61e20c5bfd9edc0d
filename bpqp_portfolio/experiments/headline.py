"""What a comparison found, in sentences: which method beats which control, and what is chance."""

from __future__ import annotations

from ..report.headline import SPACE, interval, percent
from .columns import p_text
from .table import ComparisonTable, Paired

NAMED = 4  # methods or controls that a sentence names before it counts them


def headline(table: ComparisonTable) -> list[str]:
    """One sentence of what was found, with its uncertainty, and those that qualify it."""
    tested = [name for name in table.methods if table.gains(name)]
    if not tested:
        return [_untested(table), *_seeds(table)]
    winners = [name for name in tested if table.beats_all(name)]
    sentences = [_winners(table, winners) if winners else _none(table)]
    for name in tested:
        won = [p for p in table.gains(name) if p.holds and name not in winners]
        lost = [p for p in table.gains(name) if p.falls_short]
        if won:
            sentences.append(f"{_title(table, name)} beats only {_listed(table, won)}.")
        if lost:
            sentences.append(f"{_title(table, name)} earns less than {_listed(table, lost)}.")
    return sentences + _seeds(table)


def _winners(table: ComparisonTable, winners: list[str]) -> str:
    """Of methods that beat all of their controls, and the best's gain over its hardest one."""
    hardest = {name: min(table.gains(name), key=lambda p: p.net.annual) for name in winners}
    best = max(winners, key=lambda name: hardest[name].net.annual)
    gain, controls = hardest[best], len(table.gains(best))
    control = _title(table, gain.control)
    all_of = (
        "" if controls == 1 else f"{'both' if controls == 2 else f'all {controls}'} of its controls"
    )
    start = f"{_title(table, best)} beats {all_of or control}"
    if len(winners) > 1:
        beat = "both beat" if len(winners) == 2 else "all beat"
        start = f"{_names(table, winners)} {beat} their controls, {_title(table, best)} by most"
    over = f" over {control}" if all_of or len(winners) > 1 else ""
    hardest_one = ", the hardest to beat" if all_of else ""
    return f"{start}: net of cost {_figures(table, gain)}{over}{hardest_one}."


def _none(table: ComparisonTable) -> str:
    """Where no method beats all of its controls: the largest difference."""
    largest = max(table.paired, key=lambda p: p.net.annual)
    over = f"{_title(table, largest.method)} over {_title(table, largest.control)}"
    if largest.net.annual <= 0:
        start, kind = "No method earns more than a control of its own", "the smallest loss"
    else:
        start, kind = "No method beats all of its controls", "the largest gain"
    clear = largest.holds or largest.falls_short
    end = f"{'' if clear else 'not '}distinguishable from chance"
    return f"{start}: {kind}, {over}, is net of cost {_figures(table, largest)}, {end}."


def _untested(table: ComparisonTable) -> str:
    """Where no method has a control: the highest return, of which nothing is tested."""
    means = table.runs.groupby(level="method")[f"net_{table.over}"].mean()
    if means.isna().all():
        return "No method traded, so there is no return to compare."
    best = str(means.idxmax())
    figure = f"{percent(means[best], sign=True)}{SPACE}% a year"
    over = f" over {table.benchmark_name}" if table.benchmark_name else ""
    if len(means) == 1:
        end = "there is nothing to compare it with"
        return f"{_title(table, best)}: net of cost {figure}{over}; {end}."
    end = "no method names a control, so no difference is tested"
    return f"{_title(table, best)} has the highest return, net of cost {figure}{over}; {end}."


def _seeds(table: ComparisonTable) -> list[str]:
    if all(frame.shape[1] == 1 for frame in table.net.values()):
        return ["One seed of each method: how much its training varies is not known."]
    return []


def _figures(table: ComparisonTable, gain: Paired) -> str:
    annual = f"{percent(gain.net.annual, sign=True)}{SPACE}% a year"
    text = p_text(gain.p_value).replace(" ", SPACE)
    p_value = f"p{SPACE}{text}" if text.startswith("<") else f"p{SPACE}={SPACE}{text}"
    count = len(table.paired)
    corrected = f", corrected for {count} comparisons" if count > 1 else ""
    return f"{annual} ({interval(gain.net)}; {p_value}{corrected})"


def _listed(table: ComparisonTable, gains: list[Paired]) -> str:
    """Controls and the differences over them."""
    texts = [
        f"{_title(table, p.control)} ({percent(p.net.annual, sign=True)}{SPACE}% a year)"
        for p in gains
    ]
    left = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {left} more" if left > 0 else "")


def _names(table: ComparisonTable, methods: list[str]) -> str:
    """Titles joined by "and", or their number where they are many."""
    if len(methods) > NAMED:
        return f"{len(methods)} methods"
    titles = [_title(table, name) for name in methods]
    return ", ".join(titles[:-1]) + " and " + titles[-1]


def _title(table: ComparisonTable, method: str) -> str:
    """In quotes, since titles hold commas."""
    return f"“{table.title(method)}”"
