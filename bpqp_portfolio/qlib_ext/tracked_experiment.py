"""Qlib's experiment and recorder with runs of any name, and parameters that a person can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlib.workflow.exp import MLflowExperiment
from qlib.workflow.recorder import MLflowRecorder


class ReadableRecorder(MLflowRecorder):
    """Qlib's recorder, whose parameters are single values also where a setting is a list of blocks.

    ``record.0.class`` and its likes, where Qlib writes the text of the whole list.
    """

    def log_params(self, **kwargs: Any) -> None:
        """Log parameters; a list of mappings is taken apart."""
        super().log_params(**flat_parameters(kwargs))


class TrackedExperiment(MLflowExperiment):
    """Qlib's experiment, whose last run is found without a name, whatever it is called."""

    @classmethod
    def of(cls, experiment: MLflowExperiment, uri: str) -> TrackedExperiment:
        """The same experiment as one of this class."""
        return cls(experiment.id, experiment.name, uri)

    def create_recorder(self, recorder_name: str | None = None) -> ReadableRecorder:
        """A new run."""
        return ReadableRecorder(self.id, self._uri, recorder_name or self._default_rec_name)

    def _get_recorder(
        self, recorder_id: str | None = None, recorder_name: str | None = None
    ) -> MLflowRecorder:
        # What Qlib asks for where its caller names no run, since it gives that name to all.
        if recorder_id is None and recorder_name == self._default_rec_name:
            runs = self.list_recorders(rtype=self.RT_L, max_results=1)
            if runs:
                return runs[0]
        return super()._get_recorder(recorder_id, recorder_name)


def flat_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``parameters`` with the entries of lists that hold mappings as parameters of their own.

    >>> flat_parameters({"record": [{"class": "A", "kwargs": {"topk": 5}}, "b"], "fields": [1, 2]})
    {'record.0.class': 'A', 'record.0.kwargs.topk': 5, 'record.1': 'b', 'fields': [1, 2]}
    """
    out: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            out |= flat_parameters({f"{name}.{key}": part for key, part in value.items()})
        elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            out |= flat_parameters({f"{name}.{i}": part for i, part in enumerate(value)})
        else:
            out[name] = value
    return out
