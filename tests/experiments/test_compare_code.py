"""The digest of the code that makes runs: what changes it, and what does not."""

from __future__ import annotations

import pytest

from bpqp_portfolio.experiments.code import PACKAGE, WITHOUT, code_digest

SOURCE = '''"""A file."""

RATE = 0.1  # a comment


def double(x):
    """Twice."""
    return 2 * x
'''


@pytest.fixture
def package(tmp_path):
    for path in ("losses/mse.py", "report/page.py", "cli/data.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(SOURCE)
    return tmp_path


def digest(package):
    return code_digest.__wrapped__(package)


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.1", "0.2"), ("2 * x", "3 * x"), ("def double(x)", "def double(x, y=1)"), ("RATE", "R")],
)
def test_another_statement_is_another_digest(package, old, new):
    before = digest(package)
    (package / "losses" / "mse.py").write_text(SOURCE.replace(old, new))
    assert digest(package) != before


def test_a_new_file_or_another_name_is_another_digest(package):
    before = digest(package)
    (package / "losses" / "huber.py").write_text("")
    added = digest(package)
    (package / "losses" / "huber.py").rename(package / "losses" / "ic.py")
    assert len({before, added, digest(package)}) == 3


@pytest.mark.parametrize(
    ("old", "new"), [("a comment", "another"), ("A file", "It"), ("Twice", "2"), ("\n\n\n", "\n")]
)
def test_comments_docstrings_and_layout_do_not_enter(package, old, new):
    before = digest(package)
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    (package / "losses" / "mse.py").write_text(changed)
    assert digest(package) == before


def test_what_only_shows_results_does_not_enter(package):
    before = digest(package)
    (package / "report" / "page.py").write_text("other = 1")
    (package / "cli" / "data.py").unlink()
    assert digest(package) == before
    assert all((PACKAGE / name).exists() for name in WITHOUT)


def test_the_package_itself_has_one():
    assert code_digest() == digest(PACKAGE) and len(code_digest()) == 64
