"""A provider in a few lines for the terminal: its days, names and lists, and what was corrected."""

from __future__ import annotations

from .provider import Provider


def summary(provider: Provider) -> str:
    """A few lines for the terminal: where, when, how much, and what an import corrected."""
    days = provider.calendar
    lines = [
        f"Qlib provider at {provider.root}",
        f"  {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(days)} days, "
        f"{len(provider.folders)} instruments",
    ]
    for market in provider.markets:
        spells = provider.spells(market)
        last = spells[(spells["start"] <= days[-1]) & (spells["end"] >= days[-1])]
        lines.append(
            f"  list {market}: {spells['instrument'].nunique()} names, "
            f"{last['instrument'].nunique()} on the last day"
        )
    if "cleaned" in provider.manifest:
        counts = {what: count for what, count in provider.manifest["cleaned"].items() if count}
        computed = counts.pop("changes_computed", 0)
        done = (f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())
        lines.append("  corrected: " + (", ".join(done) or "nothing"))
        if computed:
            lines.append("  computed: change, from the closes of names that came without it")
    if provider.manifest.get("indices"):
        listed = _first(provider.manifest["indices"])
        lines.append(f"  indices, to compare with and not to hold: {listed}")
    if provider.manifest.get("maybe_indices"):
        listed = _first(provider.manifest["maybe_indices"])
        lines.append(
            f"  looks like an index, and is in the lists of names to hold: {listed}; if it is "
            "one, import again with --index CODE"
        )
    return "\n".join(lines)


def _first(names: list[str]) -> str:
    rest = len(names) - 5
    return ", ".join(names[:5]) + (f" and {rest} more" if rest > 0 else "")
