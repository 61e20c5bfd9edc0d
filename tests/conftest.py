"""Shared fixtures: the real CSI 300 data and a browser, where they are at hand."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

REAL_DATA = Path(
    os.environ.get("BPQP_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
).resolve()
ARCHIVE = "cn_csi300_2010_2022.tar.xz"


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """The archive of real CSI 300 data, or a skip that says what is missing."""
    path = REAL_DATA / ARCHIVE if REAL_DATA.is_dir() else REAL_DATA
    if not path.is_file():
        pytest.skip(f"real data not found at {path}; set BPQP_REAL_DATA to the archive")
    return path


@pytest.fixture(scope="session")
def real_provider(real_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the unpacked real provider (read only)."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(real_archive) as archive:
        archive.extractall(folder, filter="data")
    return folder / "cn_csi300"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a headless-capable Chromium, or a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on the path; install the Debian package chromium to run this test")
