"""Writing without ever leaving a half-written file or folder in place of a good one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path


def _resolved(target: Path) -> Path:
    """``target`` with links followed, so that what a link points to is replaced, not the link."""
    target = Path(target).expanduser().resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty scratch folder beside ``target`` that replaces it only on success.

    On an error or an interruption the scratch folder is removed and ``target`` stays as it was.
    """
    target = _resolved(target)
    scratch = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    )
    old = scratch / "old"
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        # rename() cannot replace a non-empty folder, so the old one steps aside first.
        try:
            if target.exists():
                os.rename(target, old)
            os.rename(fresh, target)
        except BaseException:  # an interrupt between the two renames must not lose the old one
            if old.exists() and not target.exists():
                os.rename(old, target)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield a scratch path beside ``target``, of the same suffix; it replaces it on success."""
    target = _resolved(target)
    scratch = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.partial{target.suffix}")
    scratch.touch()
    try:
        yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
