"""The wheel and the sdist: what they carry and say. The demonstration runs from the wheel."""

from __future__ import annotations

import tarfile
import zipfile
from email.parser import Parser

from conftest import ROOT

CARRIED = {
    path.relative_to(ROOT).as_posix()
    for pattern in ("workflows/*.*", "configs/*.yaml", "notebooks/*.ipynb")
    for path in ROOT.glob(pattern)
}
MODULES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("bpqp_portfolio/**/*.py")}


def test_what_the_wheel_carries(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = set(wheel.namelist())
        for path in CARRIED:
            assert wheel.read(f"bpqp_portfolio/starter/{path}") == (ROOT / path).read_bytes()
    assert names >= MODULES | {"bpqp_portfolio/py.typed", "bpqp_portfolio/__init__.pyi"}
    starter = {n.removeprefix("bpqp_portfolio/starter/") for n in names if "/starter/" in n}
    assert starter == CARRIED
    assert {n.split("/")[0] for n in names if "dist-info" not in n} == {"bpqp_portfolio"}


def test_the_sdist_carries_what_the_wheel_is_built_from(distributions):
    with tarfile.open(distributions[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= CARRIED | MODULES | {"README.md", "LICENSE", "CHANGELOG.md", "setup.py"}


def test_metadata(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith("/METADATA"))
        facts = Parser().parsestr(wheel.read(name).decode())
    assert facts["License-Expression"] == "MIT"
    links = dict(line.split(", ") for line in facts.get_all("Project-URL"))
    assert set(links) == {"Homepage", "Documentation", "Issues", "Changelog"}
    assert "Typing :: Typed" in facts.get_all("Classifier")
    assert "bpqp_portfolio" in facts.get_payload()  # the README
