"""What a workflow writes, tried before any work: tracking, artifacts, cache, a copied report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.atomic import check_writable
from ..files.cache import ELSEWHERE, cache_root
from ..runs.database import check_tracking, database_file

ARTIFACTS = "mlruns"
"""Where MLflow keeps the artifacts of a new experiment, in the working directory."""


def check_outputs(config: Mapping[str, Any]) -> None:
    """All that the workflow ``config`` writes can be written.

    Raises
    ------
    ConfigError, DataError
        A tracking address that MLflow does not take, or at which no server answers.
    StorageError
        A file or folder that cannot be written.
    """
    uri = config["qlib_init"]["exp_manager"]["kwargs"]["uri"]
    check_tracking(uri)
    if database_file(uri) is not None:
        check_writable(
            Path(ARTIFACTS), folder=True, elsewhere="run the workflow in another working directory"
        )
    check_writable(cache_root(), folder=True, elsewhere=ELSEWHERE)
    records = config["task"].get("record") or []
    for record in [records] if isinstance(records, Mapping) else records:
        out = record.get("kwargs", {}).get("out") if record["class"] == "ReportRecord" else None
        if out is not None:
            check_writable(Path(out), elsewhere="name another file by ReportRecord.out")
