"""The adapters to Qlib: handler, dataset, model, strategies, exchange and records.

Start at ``dataset.py`` and ``model.py``, which a workflow names; ``records.py`` and
``mandate_records.py`` judge a trained model, ``preflight.py`` checks a task before any long work.
"""

import os

# MLflow draws a bar for every small file that Qlib's records read back.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
