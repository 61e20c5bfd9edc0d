"""The laws of the house: one import direction, no circles, and a page in front of every room."""

from __future__ import annotations

import ast

import pytest
from imports_of import circles, imports, modules

# From the ground up: a room may import what stands before it.
ORDER = (
    "errors",
    "config",
    "files",
    "markets",
    "problems",
    "solvers",
    "layers",
    "risk",
    "data",
    "portfolio",
    "predictors",
    "losses",
    "training",
    "backtest",
    "runs",
    "report",
    "qlib_ext",
    "live",
    "experiments",
    "reference",
    "cli",
)
MATHEMATICS = ("problems", "solvers", "layers")
FOREIGN = {"qlib", "mlflow", "pandas", "matplotlib"}
# Within a room that has rooms of its own, as above.
INNER = {
    "solvers": ("common", "qp", "conic", "smooth", "registry", "auto", "factor"),
    "data": ("provider", "quality", "universe", "features"),
}


def room(module: str) -> str:
    """The first folder or file below the package."""
    return [*module.split("."), ""][1]


def test_every_room_is_in_the_order():
    assert {room(name) for name in modules()} - {""} <= set(ORDER)


def test_imports_point_one_way():
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if other.startswith("bpqp_portfolio.")
        and room(name)
        and room(other) != room(name)
        and ORDER.index(room(other)) > ORDER.index(room(name))
    ]
    assert not wrong


@pytest.mark.parametrize("outer", INNER)
def test_imports_within_a_room_point_one_way(outer):
    order = INNER[outer]

    def place(module: str) -> int | None:
        parts = module.split(".")
        inside = len(parts) > 2 and parts[1] == outer and parts[2] in order
        return order.index(parts[2]) if inside else None

    wrong = []
    for name, others in imports().items():
        for other in others:
            mine, theirs = place(name), place(other)
            if mine is not None and theirs is not None and theirs > mine:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_no_file_is_part_of_a_circle():
    assert not circles(imports())


def test_the_search_for_circles_finds_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_mathematics_knows_no_finance():
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if room(name) in MATHEMATICS and other.split(".")[0] in FOREIGN
    ]
    assert not wrong


def test_every_file_says_what_lives_in_it():
    for name, path in modules().items():
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text, f"{name} has no docstring"
        first = text.splitlines()[0]
        assert first.endswith((".", ":")), f"{name}: its first line is no sentence: {first!r}"


def test_every_folder_says_where_to_start():
    for name, path in modules().items():
        if path.name == "__init__.py" and "." in name:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert len(text.splitlines()) >= 3, f"{name}: say in three lines what is there"
            assert ".py``" in text, f"{name}: name the file to start with"
