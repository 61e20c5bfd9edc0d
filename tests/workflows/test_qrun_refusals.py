"""A slip in a workflow ends qrun at once: another exit code than 0, and nothing was computed."""

from __future__ import annotations

import pytest

from bpqp_portfolio.data.provider.simulate import simulate_market

WORKFLOW = "workflows/bpqp_csi300.yaml"
VARIABLES = {
    "BPQP_PROVIDER_URI": "market",
    "BPQP_MARKET": "sim",
    "BPQP_BENCHMARK": "SIMIDX",
    "BPQP_EXCLUSIONS": "none",
    "BPQP_TRAIN_START": "2015-06-01",
    "BPQP_TRAIN_END": "2015-09-30",
    "BPQP_VALID_START": "2015-10-01",
    "BPQP_VALID_END": "2015-12-31",
    "BPQP_TEST_START": "2016-01-04",
    "BPQP_TEST_END": "2016-03-15",
}


@pytest.fixture(scope="module", autouse=True)
def market(workspace):
    """A simulated market on which the workflow would run."""
    simulate_market(workspace.folder / "market", names=25, years=1.25, factors=2)


@pytest.mark.parametrize(
    ("edit", "variables", "message"),
    [
        (
            (WORKFLOW, "sweeps: 2", "sweep: 2"),
            {},
            "error: loss 'net_utility': unknown key 'sweep'. Did you mean 'sweeps'?",
        ),
        (
            ("configs/portfolio.yaml", "risk_degree:", "risk_degre:"),
            {},
            "error: mandate.account: unknown key 'risk_degre'. Did you mean 'risk_degree'?",
        ),
        (
            (WORKFLOW, "net_utility", '"{{ BPQP_LOSS }}"'),
            {},
            "error: workflows/bpqp_csi300.yaml: 'BPQP_LOSS' is undefined; set that",
        ),
        (
            ("configs/portfolio.yaml", "window: 240", "windw: 240"),
            {},
            "error: risk: unknown key 'windw'. Did you mean 'window'?",
        ),
        (
            None,
            {"BPQP_PROVIDER_URI": "nowhere"},
            "error: qlib_init.provider_uri: no Qlib prov",
        ),
    ],
    ids=["loss", "record", "variable", "risk", "provider"],
)
def test_qrun_ends_before_any_work(workspace, edit, variables, message):
    kept = {}
    if edit is not None:
        kept[edit[0]] = (workspace.folder / edit[0]).read_text()
        workspace.edit(*edit)
    tracked = workspace.folder / f"{edit is None}.db"
    address = {"MLFLOW_TRACKING_URI": f"sqlite:///{tracked.name}"}
    done = workspace.run("qrun", WORKFLOW, **{**VARIABLES, **variables, **address})
    for file, text in kept.items():
        (workspace.folder / file).write_text(text)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stdout and 'File "' not in done.stdout
    for stage in ("features", "risk", "training"):
        assert f"[{stage}]" not in done.stdout
    assert not (workspace.folder / "cache").exists()
    assert not tracked.exists()  # it is said before the tracking database is opened
