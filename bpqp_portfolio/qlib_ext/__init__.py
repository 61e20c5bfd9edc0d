"""The adapters to Qlib: handler, dataset, model, strategy, exchange and records."""

import os

# MLflow draws a bar for every small file that Qlib's records read back.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
