"""Reading a comparison's file: what it runs, under which keys, and what it refuses."""

from __future__ import annotations

import pytest

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.experiments.plan import plan, read_comparison

BASE = """
qlib_init: {region: cn}
task:
  model:
    kwargs:
      loss: {name: squared_regret, beta: 0.1}
      trainer: {epochs: 3, seed: 7}
"""
WORKFLOW = """
BASE_CONFIG_PATH: base.yaml
qlib_init: {provider_uri: "{{ SOME_PROVIDER | default('here', true) }}"}
task: {dataset: {class: PortfolioDataset}}
"""
COMPARISON = """
workflow: workflow.yaml
experiment_name: study
seeds: 2
methods:
  plain: {title: As it is, control: mse}
  mse: {title: Two-stage, task: {model: {kwargs: {loss: {name: mse, beta: __DROP__}}}}}
  fixed: {title: Not random, seeds: 1, seed: model.kwargs.seed}
"""


@pytest.fixture
def study(tmp_path):
    for name, text in (("base", BASE), ("workflow", WORKFLOW), ("compare", COMPARISON)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def edit(study, old, new, file="compare.yaml"):
    text = (study / file).read_text()
    assert text.count(old) == 1
    (study / file).write_text(text.replace(old, new))
    return study / "compare.yaml"


def test_every_method_is_the_workflow_with_its_changes_and_seed(study):
    runs = plan(*read_comparison(study / "compare.yaml"))
    assert [run.name for run in runs] == [
        "plain-seed0", "mse-seed0", "fixed-seed0", "plain-seed1", "mse-seed1"
    ]  # fmt: skip
    plain, mse, fixed, second, _ = runs
    assert plain.config["qlib_init"] == {"region": "cn", "provider_uri": "here"}
    assert plain.config["experiment_name"] == "study"
    model = plain.config["task"]["model"]["kwargs"]
    assert model == {
        "loss": {"name": "squared_regret", "beta": 0.1},
        "trainer": {"epochs": 3, "seed": 0},
    }
    assert mse.config["task"]["model"]["kwargs"]["loss"] == {"name": "mse"}
    assert second.config["task"]["model"]["kwargs"]["trainer"]["seed"] == 1
    kwargs = fixed.config["task"]["model"]["kwargs"]
    assert kwargs["seed"] == 0 and kwargs["trainer"]["seed"] == 7


def test_keys_tell_apart_what_gives_another_result_and_nothing_else(study, monkeypatch):
    def keys():
        return {run.name: run.key for run in plan(*read_comparison(study / "compare.yaml"))}

    before = keys()
    assert len(set(before.values())) == len(before)
    edit(study, "title: Two-stage", "title: Otherwise called")
    assert keys() == before
    edit(study, "name: mse", "name: regret")
    changed = {name for name, key in keys().items() if key != before[name]}
    assert changed == {"mse-seed0", "mse-seed1"}
    monkeypatch.setenv("SOME_PROVIDER", "there")
    assert not set(keys().values()) & set(before.values())


def test_several_controls_are_kept_in_their_order(study):
    comparison, _ = read_comparison(edit(study, "control: mse", "control: [fixed, mse]"))
    assert comparison.methods["plain"].controls == ("fixed", "mse")
    assert comparison.methods["mse"].controls == ()


def test_a_method_like_another_has_its_changes_its_seeds_and_then_its_own(study):
    text = (study / "compare.yaml").read_text() + (
        "  slow: {title: Slow, like: mse, task: {model: {kwargs: {trainer: {epochs: 9}}}}}\n"
        "  slower: {title: Slower, like: slow, seeds: 1, task: {dataset: {class: Other}}}\n"
        "  still: {title: Still, like: fixed}\n"
    )
    (study / "compare.yaml").write_text(text)
    runs = {run.name: run.config["task"] for run in plan(*read_comparison(study / "compare.yaml"))}
    assert runs["slow-seed1"]["model"]["kwargs"] == {
        "loss": {"name": "mse"},
        "trainer": {"epochs": 9, "seed": 1},
    }
    assert runs["mse-seed1"]["model"]["kwargs"]["trainer"] == {"epochs": 3, "seed": 1}
    assert runs["slower-seed0"]["dataset"] == {"class": "Other"} and "slower-seed1" not in runs
    assert runs["slow-seed0"]["dataset"] == {"class": "PortfolioDataset"}
    assert runs["still-seed0"]["model"]["kwargs"]["seed"] == 0 and "still-seed1" not in runs


def test_methods_like_each_other_are_refused(study):
    edit(study, "control: mse", "like: mse")
    edit(study, "title: Two-stage", "like: plain, title: Two-stage")
    with pytest.raises(ConfigError, match=r"methods\.plain\.like: plain is like mse is like plain"):
        read_comparison(study / "compare.yaml")


def test_fewer_seeds_by_the_call(study):
    runs = plan(*read_comparison(study / "compare.yaml"), seeds=1)
    assert [run.seed for run in runs] == [0, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: 2", "seed: 2", r"unknown key 'seed'.*'seeds'"),
        ("seeds: 2", "seeds: 0", r"seeds: must be >= 1"),
        ("control: mse", "control: msee", r"methods.plain.control: no other.*'mse'"),
        ("control: mse", "control: plain", r"methods.plain.control: no other"),
        ("control: mse", "control: [fixed, msee]", r"methods.plain.control: no other.*'mse'"),
        ("control: mse", "control: [mse, mse]", r"methods.plain.control: .* twice"),
        ("control: mse", "control: {mse: 1}", r"methods.plain.control: expected a name"),
        ("control: mse", "like: msee", r"methods.plain.like: no other method 'msee'.*'mse'"),
        ("control: mse", "like: plain", r"methods.plain.like: no other"),
        ("title: Two-stage", "title: As it is", r"methods.mse.title: 'As it is' is also that of"),
        ("title: As it is", "titel: As it is", r"methods.plain: unknown key 'titel'.*'title'"),
        ("workflow.yaml", "nowhere.yaml", r"no file .*nowhere.yaml"),
        ("model.kwargs.seed", "modell.kwargs.seed", r"methods.fixed.seed.*'modell.kwargs.seed'"),
        ("methods:", "methods: {}\nothers:", r"unknown key 'others'"),
        ("experiment_name: study", "experiment_name: [", r"compare\.yaml, line \d+, column \d+: "),
    ],
)
def test_refusals(study, old, new, message):
    edit(study, old, new)
    with pytest.raises(ConfigError, match=message):
        plan(*read_comparison(study / "compare.yaml"))


def test_a_workflow_without_a_task_is_refused(study):
    edit(study, "task: {dataset", "tasks: {dataset", file="workflow.yaml")
    edit(study, "\ntask:", "\ntasks:", file="base.yaml")
    with pytest.raises(ConfigError, match="'task' is missing"):
        read_comparison(study / "compare.yaml")


def test_a_comparison_needs_an_index(study):
    file = edit(
        study,
        "task: {dataset: {class: PortfolioDataset}}",
        "task: {dataset: {class: PortfolioDataset, kwargs: {benchmark: null}}}",
        "workflow.yaml",
    )
    with pytest.raises(ConfigError, match=r"benchmark is null.*name one"):
        read_comparison(file)


def test_methods_that_differ_in_more_than_the_method_are_refused_unless_that_is_compared(study):
    base = "task: {dataset: {class: PortfolioDataset, kwargs: {mandate: {costs: {buy: 0.001}}}}}"
    edit(study, "task: {dataset: {class: PortfolioDataset}}", base, "workflow.yaml")
    text = (study / "compare.yaml").read_text() + (
        "  dear:\n    title: Dear\n    task: {dataset: {kwargs: {mandate: {costs: {buy: 0.02}}}}}\n"
    )
    (study / "compare.yaml").write_text(text)
    both = r"methods\.fixed and methods\.dear differ in costs: {'buy': 0\.001} and {'buy': 0\.02}"
    with pytest.raises(ConfigError, match=both + r".*`compare: \[costs\]`"):
        plan(*read_comparison(study / "compare.yaml"))
    edit(study, "seeds: 2", "seeds: 2\ncompare: [costs]")
    assert len(plan(*read_comparison(study / "compare.yaml"), seeds=1)) == 4
    edit(study, "compare: [costs]", "compare: [costs, days]")
    with pytest.raises(ConfigError, match="compare: no two methods differ in days"):
        plan(*read_comparison(study / "compare.yaml"))
    edit(study, "compare: [costs, days]", "compare: [cost]")
    with pytest.raises(ConfigError, match=r"unknown fact to compare 'cost'.* Did you mean 'costs'"):
        read_comparison(study / "compare.yaml")


@pytest.mark.parametrize(
    ("fact", "change"),
    [
        ("market", "market: other"),
        ("market", "market_rules: {lot: 1}"),
        ("benchmark", "benchmark: OTHER"),
        ("days", "segments: {test: [a, c]}"),
        ("data", "exclusions: none"),
        ("account", "mandate: {account: {value: 1}}"),
    ],
)
def test_each_fact_is_looked_at(study, fact, change):
    kwargs = (
        "{market: m, benchmark: I, segments: {train: [a, b], test: [a, b]}, exclusions: check, "
        "mandate: {account: {value: 2}}}"
    )
    base = f"task: {{dataset: {{class: PortfolioDataset, kwargs: {kwargs}}}}}"
    edit(study, "task: {dataset: {class: PortfolioDataset}}", base, "workflow.yaml")
    plan(*read_comparison(study / "compare.yaml"))
    edit(study, "seeds: 1, seed", f"task: {{dataset: {{kwargs: {{{change}}}}}}}, seeds: 1, seed")
    with pytest.raises(ConfigError, match=rf"methods\.mse and methods\.fixed differ in {fact}: "):
        plan(*read_comparison(study / "compare.yaml"))
