"""What records keep beside Qlib's pickles: tables as Parquet, facts as JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..runs.results import plain
from ..runs.tracked import ARTIFACTS as RESULTS


def keep(recorder: Any, folder: str, tables: Mapping[str, Any]) -> None:
    """Write ``folder/NAME.parquet`` of each table or series, ``folder/NAME.json`` of each mapping.

    ``recorder`` is Qlib's, of the run that is being made.
    """
    if not tables:
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, value in tables.items():
            if isinstance(value, Mapping):
                text = json.dumps(plain(value), indent=2) + "\n"
                (Path(scratch) / f"{name}.json").write_text(text, encoding="utf-8")
            else:
                frame = value.to_frame() if isinstance(value, pd.Series) else value
                frame.to_parquet(Path(scratch) / f"{name}.parquet", engine="pyarrow")
        recorder.save_objects(local_path=scratch, artifact_path=folder)


def kept_table(recorder: Any, place: str) -> pd.DataFrame:
    """The table at ``place`` among the artifacts, such as ``bpqp/results/weights.parquet``.

    A series comes back as a table of one column.
    """
    return pd.read_parquet(recorder.client.download_artifacts(recorder.id, place))


def kept_targets(recorder: Any) -> pd.Series:
    """Target weights > 0 by (signal day, instrument) that the record of the backtest kept."""
    rows = kept_table(recorder, f"{RESULTS}/weights.parquet")
    return rows.set_index(["datetime", "instrument"])["weight"]


def kept_facts(recorder: Any, place: str) -> dict[str, Any]:
    """The mapping at ``place`` among the artifacts."""
    path = Path(recorder.client.download_artifacts(recorder.id, place))
    return json.loads(path.read_text(encoding="utf-8"))
