"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

TrackingUri = Annotated[
    str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="Default: sqlite:///mlflow.db.")
]
