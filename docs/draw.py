"""The rooms of the package and one trip through them as SVG.

python docs/draw.py OUT.svg [--package DIR] [--trip trip.json], where docs/trip.py makes the trip.

A room is a folder of the package, or a file beside them. Rooms stand above all that they import; an
arrow that runs upwards is red. Below, the trip: one column a stop, one line a room.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from imports_of import imports, modules

WIDTH, MARGIN, HEIGHT, GAP = 1120, 24, 46, 34
LANE, LEFT = 20, 150
INK, PAPER, LINE, UP = "#1f2933", "#eef2f6", "#9aa9b8", "#c62828"


def room_of(module: str) -> str:
    """Folder or file below the package."""
    return ([*module.split("."), "", ""])[1]


class House:
    """Rooms with their lines, the imports between them, and the floor of each."""

    def __init__(self, package: Path) -> None:
        self.lines: Counter[str] = Counter()
        for name, path in modules(package).items():
            if room := room_of(name):
                self.lines[room] += len(path.read_text().splitlines())
        self.arrows: Counter[tuple[str, str]] = Counter()
        for name, others in imports(package).items():
            for other in others:
                ends = room_of(name), room_of(other)
                if other.startswith(package.name + ".") and all(ends) and ends[0] != ends[1]:
                    self.arrows[ends] += 1
        self.floors = self._floors()

    def _floors(self) -> dict[str, int]:
        """Longest way down from each room; of two arrows face to face the heavier counts."""
        down: dict[str, set[str]] = {room: set() for room in self.lines}
        for (a, b), count in self.arrows.items():
            if count > self.arrows.get((b, a), 0) or (count == self.arrows.get((b, a)) and a > b):
                down[a].add(b)
        floors: dict[str, int] = {}

        def floor(room: str, seen: frozenset[str] = frozenset()) -> int:
            if room not in floors:
                below = [floor(b, seen | {room}) for b in down[room] if b not in seen]
                floors[room] = 1 + max(below, default=-1)
            return floors[room]

        for room in sorted(down):
            floor(room)
        return floors

    def order(self) -> list[str]:
        """Rooms from the top floor down."""
        return sorted(self.lines, key=lambda room: (-self.floors[room], room))


def draw_house(house: House) -> tuple[list[str], float]:
    """SVG elements of rooms and arrows, and their height."""
    parts, place, y = [], {}, float(MARGIN)
    for floor in sorted(set(house.floors.values()), reverse=True):
        rooms = [room for room in house.order() if house.floors[room] == floor]
        free = WIDTH - 2 * MARGIN - 12 * (len(rooms) - 1)
        sizes = [max(house.lines[room] ** 0.5 * 2.6, 8 * len(room) + 24) for room in rooms]
        scale = min(1.0, free / sum(sizes))
        x = MARGIN + (free - scale * sum(sizes)) / 2
        for room, size in zip(rooms, sizes, strict=True):
            place[room] = x, y, scale * size
            x += scale * size + 12
        y += HEIGHT + GAP
    for (a, b), count in sorted(house.arrows.items()):
        up = house.floors[b] >= house.floors[a]
        (xa, ya, wa), (xb, yb, wb) = place[a], place[b]
        start, end = (ya, yb + HEIGHT) if yb < ya else (ya + HEIGHT, yb)
        x1, x2, bend = xa + wa / 2, xb + wb / 2, (end - start) / 2
        way = f"M{x1:.0f},{start:.0f} C{x1:.0f},{start + bend:.0f}"
        parts.append(
            f'<path d="{way} {x2:.0f},{end - bend:.0f} {x2:.0f},{end:.0f}" '
            f'fill="none" stroke="{UP if up else LINE}" '
            f'stroke-width="{min(0.6 + count / 8, 4):.1f}" opacity="{0.9 if up else 0.45}"/>'
        )
    for room, (x, top, size) in place.items():
        parts.append(
            f'<rect x="{x:.0f}" y="{top:.0f}" width="{size:.0f}" height="{HEIGHT}" rx="6" '
            f'fill="{PAPER}" stroke="{INK}"/>'
            f'<text x="{x + size / 2:.0f}" y="{top + 20:.0f}" text-anchor="middle" '
            f'font-weight="600">{escape(room)}</text>'
            f'<text x="{x + size / 2:.0f}" y="{top + 36:.0f}" text-anchor="middle" '
            f'font-size="11">{house.lines[room]:,} lines</text>'
        )
    return parts, y


def draw_trip(house: House, trip: list[tuple[str, str]], top: float) -> tuple[list[str], float]:
    """SVG elements of the trip by stop and room, and where they end."""
    stops = [path.split("/")[0].removesuffix(".py") for _, path in trip]
    starts = [path.split("/")[0].removesuffix(".py") for path, _ in trip]
    climbs = sum(house.floors[b] > house.floors[a] for a, b in zip(starts, stops, strict=True))
    files = {path for pair in trip for path in pair}
    lanes = [room for room in house.order() if room in {*stops, *starts}]
    y = {room: top + 44 + LANE * i for i, room in enumerate(lanes)}
    step = (WIDTH - LEFT - MARGIN) / max(len(stops), 1)
    parts = [
        f'<text x="{MARGIN}" y="{top + 18:.0f}" font-weight="600">'
        f"target_weights: {len(trip)} stops in {len(files)} files, {climbs} upwards</text>"
    ]
    for room in lanes:
        parts.append(
            f'<text x="{LEFT - 12}" y="{y[room] + 4:.0f}" text-anchor="end" font-size="12">'
            f'{escape(room)}</text><line x1="{LEFT}" x2="{WIDTH - MARGIN}" y1="{y[room]:.0f}" '
            f'y2="{y[room]:.0f}" stroke="{PAPER}"/>'
        )
    points = [(LEFT + step * (i + 0.5), y[room]) for i, room in enumerate(stops)]
    line = " ".join(f"{x:.1f},{height:.0f}" for x, height in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{LINE}"/>')
    for (x, height), a, b in zip(points, starts, stops, strict=True):
        colour = UP if house.floors[b] > house.floors[a] else INK
        parts.append(f'<circle cx="{x:.1f}" cy="{height:.0f}" r="2.5" fill="{colour}"/>')
    return parts, top + 60 + LANE * len(lanes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--package", type=Path, default=Path("bpqp_portfolio"))
    parser.add_argument("--trip", type=Path)
    options = parser.parse_args()
    house = House(options.package.resolve())
    parts, height = draw_house(house)
    if options.trip is not None:
        more, height = draw_trip(house, json.loads(options.trip.read_text()), height)
        parts += more
    options.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()
