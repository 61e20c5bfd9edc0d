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
    if codes := provider.manifest.get("codes"):
        shown = _first([f"{code} as {to}" for code, to in codes.items()])
        lines.append(f"  codes of China's exchanges, read as Qlib writes them: {shown}")
    if provider.manifest.get("benchmark"):
        lines.append(f"  benchmark, in no list of names to hold: {provider.manifest['benchmark']}")
    if others := [
        n for n in provider.manifest.get("indices", []) if n != provider.manifest.get("benchmark")
    ]:
        lines.append(f"  indices, to compare with and not to hold: {_first(others)}")
    if provider.manifest.get("maybe_indices"):
        listed = _first(provider.manifest["maybe_indices"])
        lines.append(
            f"  looks like an index, and is in the lists of names to hold: {listed}; if it is "
            "one, import again with --benchmark CODE"
        )
    if provider.manifest.get("open_ended"):
        lines.append(
            "  may be cut off, since they end without a line break, unlike the other files: "
            + _first(provider.manifest["open_ended"])
        )
    if provider.manifest.get("maybe_lots"):
        lines.append(
            "  volumes may be 100 times too small, being read as shares: `vol` beside `amount` is "
            "in lots of 100 shares where Tushare wrote it; if so, multiply it by 100 and import "
            "again: " + _first(provider.manifest["maybe_lots"])
        )
    lines += _appended(provider.manifest.get("appended"))
    return "\n".join(lines)


def _appended(entries: list[dict] | None) -> list[str]:
    """What the last of the appended tables brought."""
    if not entries:
        return []
    entry = entries[-1]
    days = " to ".join(dict.fromkeys((entry["start"], entry["end"])))
    lines = [f"  appended last: {days}, {entry['names']} names, from {entry['source']}"]
    if entry["new_names"]:
        lines.append(f"  new names: {_first(entry['new_names'])}")
    if entry["ended"]:
        lines.append(f"  without a price after the day before: {_first(entry['ended'])}")
    return lines


def _first(names: list[str]) -> str:
    rest = len(names) - 5
    return ", ".join(names[:5]) + (f" and {rest} more" if rest > 0 else "")
