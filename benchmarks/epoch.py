"""What an epoch costs, two-stage against end-to-end, where the time goes, and large markets."""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.data.features.panel import DailyPanel
from bpqp_portfolio.losses import build_loss, decision_loss, information_coefficient
from bpqp_portfolio.markets.rules import MARKET_RULES
from bpqp_portfolio.portfolio import PortfolioLayer, PortfolioProblem
from bpqp_portfolio.predictors import build_predictor
from bpqp_portfolio.training import Trainer, TrainerConfig, resolve_device, torch_threads

from . import render

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "benchmarks" / "figures" / "epoch.png"
PAGE = ROOT / "docs" / "benchmarks" / "epoch.md"
MARKS = "<!-- epoch:begin -->", "<!-- epoch:end -->"
STAGES = (
    "batch assembly",
    "network forward",
    "solver forward",
    "loss",
    "backward through the solver",
    "backward through the network",
    "optimiser",
    "validation",
)
LOSSES = {"two-stage": "mse", "end-to-end": "squared_regret"}
SEGMENTS = {
    "train": ("2011-01-04", "2016-12-30"),
    "valid": ("2017-01-03", "2018-12-28"),
    "test": ("2019-01-02", "2022-12-29"),
}


class TimedProblem(PortfolioProblem):
    """The problem, with the seconds that its solves took."""

    seconds = 0.0

    def solve(self, scores: torch.Tensor, batch: Any) -> Any:
        started = time.perf_counter()
        solution = super().solve(scores, batch)
        self.seconds += time.perf_counter() - started
        return solution


class Study:
    """A panel with its days to learn from and to validate on, and the workflow's settings."""

    def __init__(self, panel: DailyPanel, train: torch.Tensor, valid: torch.Tensor, scale: float):
        settings = yaml.safe_load((ROOT / "configs" / "portfolio.yaml").read_text())["task"]
        self.panel, self.train, self.valid = panel, train, valid
        stated = settings["dataset"]["kwargs"]
        mandate = MandateSettings.from_config(stated["mandate"], MARKET_RULES["cn"].days_per_year)
        config = mandate.training_problem(stated["problem"])
        # A small market cannot be held within the workflow's cap.
        least = 2.0 / int(panel.counts.min())
        config = replace(config, max_weight=min(1.0, max(config.max_weight, least)))
        self.problem = TimedProblem(config, scale)
        self.trainer = settings["model"]["kwargs"]["trainer"]

    def network(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return build_predictor("mlp", self.panel.features.shape[1], hidden=[256, 256])

    def epochs(self, device: str, rounds: int) -> dict[str, list[dict[str, float]]]:
        """Records of the trainer's epochs, one epoch of each loss in turn, the first not kept."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in LOSSES}
        for turn in range(rounds + 1):
            for name, loss in LOSSES.items():
                config = TrainerConfig(**{**self.trainer, "epochs": 1})
                trainer = Trainer(
                    self.network(), build_loss(loss), self.problem, config, device=device
                )
                (record,) = trainer.fit(self.panel, self.train, self.valid).history
                if turn:
                    found[name].append(record)
        return found

    def stages(self, loss: str) -> dict[str, float]:
        """Seconds of the stages of one epoch, stepped through one by one on the CPU.

        Two-stage solves nothing in training here; what the trainer solves for its report of the
        regret is not part of the epoch that is compared with.
        """
        network, objective = self.network(), build_loss(loss)
        seconds: dict[str, float] = defaultdict(float)
        optimiser = torch.optim.Adam(network.parameters(), lr=self.trainer["learning_rate"])
        blocks = self.train.split(self.trainer["batch_days"])
        order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(0))

        @contextmanager
        def clock(name: str) -> Iterator[None]:
            started = time.perf_counter()
            yield
            seconds[name] += time.perf_counter() - started

        for i in order.tolist():
            with clock("batch assembly"):
                batch = self.panel.batch(blocks[i])
            with clock("network forward"):
                scores = batch.pad(network(batch.features))
            cut, before = scores.detach().requires_grad_(), self.problem.seconds
            with clock("loss"):
                total = objective(cut, batch, self.problem).total.mean()
            seconds["solver forward"] += self.problem.seconds - before
            seconds["loss"] -= self.problem.seconds - before
            with clock("backward through the solver"):
                total.backward()
            with clock("backward through the network"):
                scores.backward(cut.grad)
            with clock("optimiser"):
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
        with clock("validation"), torch.no_grad():
            network.eval()
            for part in self.panel.chunks(self.valid):
                batch = self.panel.batch(part)
                scores = batch.pad(network(batch.features))
                objective(scores, batch, self.problem)
                if loss == "mse":
                    decision_loss(scores, batch, self.problem)
                information_coefficient(scores, batch.returns, batch.known)
        return {name: seconds[name] for name in STAGES}


def real_study(provider: str) -> Study:
    """CSI 300 of a Qlib provider, as the main workflow prepares it."""
    import qlib

    from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset

    qlib.init(provider_uri=provider, region="cn", logging_level=40)
    settings = yaml.safe_load((ROOT / "configs" / "portfolio.yaml").read_text())["task"]
    dataset = PortfolioDataset(
        "csi300", "SH000300", SEGMENTS, exclusions="check", **settings["dataset"]["kwargs"]
    )
    panel = dataset.panel()
    dataset.fill_oracle_values(["train", "valid"])
    return Study(panel, dataset.days("train"), dataset.days("valid"), dataset.problem.scale)


def simulated_study(folder: Path | None, days: int, names: int, features: int) -> Study:
    """Random data of a market's shape, its large arrays memory-mapped from ``folder`` if given."""
    rng, rows = np.random.default_rng(0), days * names

    def made(name: str, width: int | None, dtype: str, fill: Any) -> torch.Tensor:
        shape = (rows,) if width is None else (rows, width)
        if folder is None:
            array: np.ndarray = np.empty(shape, dtype)
        else:
            array = np.memmap(folder / name, dtype, "w+", shape=shape)
        for start in range(0, rows, 200_000):
            part = array[start : start + 200_000]
            part[...] = fill(part.shape)
        if folder is not None and isinstance(array, np.memmap):
            array.flush()
            array = np.memmap(folder / name, dtype, "c", shape=shape)
        return torch.from_numpy(array)

    def normal(scale: float) -> Any:
        return lambda shape: scale * rng.standard_normal(shape, dtype=np.float32)

    index = torch.arange(rows)
    panel = DailyPanel(
        dates=np.datetime64("2010-01-01") + np.arange(days),
        names=np.array([f"S{i:05d}" for i in range(names)]),
        offsets=torch.arange(0, rows + 1, names),
        name_index=index % names,
        features=made("features", features, "f4", normal(1.0)),
        label=made("label", None, "f4", normal(1.0)),
        returns=made("returns", None, "f8", normal(0.02)),
        loadings=made("loadings", 10, "f8", normal(0.005)),
        specific=made("specific", None, "f8", lambda shape: rng.uniform(2e-4, 8e-4, shape)),
        previous=(index - names).clamp_min(0) + (index < names) * index,
        oracle_value=torch.full((days,), torch.nan, dtype=torch.float64),
    )
    cut = days * 3 // 4
    study = Study(panel, torch.arange(cut), torch.arange(cut, days), 0.02)
    study.problem.fill_oracle_values(panel, torch.arange(days))
    return study


class Memory:
    """The largest anonymous and whole resident memory of this process in a block, in GB."""

    def __enter__(self) -> Memory:
        self.anonymous = self.resident = 0.0
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._sample)
        self._watch.start()
        return self

    def _sample(self) -> None:
        while not self._end.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            kb = {k: float(v.split()[0]) for k, _, v in (line.partition(":") for line in lines)
                  if k in ("VmRSS", "RssAnon")}  # fmt: skip
            self.anonymous = max(self.anonymous, kb["RssAnon"] / 1e6)
            self.resident = max(self.resident, kb["VmRSS"] / 1e6)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._watch.join()


def large_market(days: int, names: int, features: int, folder: Path) -> str:
    """One end-to-end epoch on a memory-mapped panel of this size, in words."""
    with tempfile.TemporaryDirectory(dir=folder) as place, Memory() as memory:
        study = simulated_study(Path(place), days, names, features)
        started = time.perf_counter()
        config = TrainerConfig(**{**study.trainer, "epochs": 1})
        objective = build_loss(LOSSES["end-to-end"])
        trainer = Trainer(study.network(), objective, study.problem, config)
        trainer.fit(study.panel, study.train, study.valid)
        seconds, size = time.perf_counter() - started, study.panel.nbytes / 1e9
        del study, trainer
        gc.collect()
    return (
        f"- A simulated market of {names} names, {days} days and {features} features ({size:.1f} "
        f"GB memory-mapped): an end-to-end epoch takes {seconds:.0f} s, with at most "
        f"{memory.anonymous:.1f} GB of its own memory ({memory.resident:.1f} GB with pages of the "
        "files, which the system may drop)."
    )


def gpu_cases() -> str:
    """Solver forward + backward of 1,000 days on a GPU, or why not."""
    if not torch.cuda.is_available():
        return "- GPU, T = 1,000 days of n = 300 and n = 5,000: skipped, no CUDA device."
    lines = []
    for n in (300, 5000):
        generator = torch.Generator("cuda").manual_seed(0)
        make: Any = {"generator": generator, "device": "cuda", "dtype": torch.float64}
        loadings = 0.005 * torch.randn(1000, n, 10, **make)
        specific = 2e-4 + 6e-4 * torch.rand(1000, n, **make)
        mu = (0.02 * torch.randn(1000, n, **make)).requires_grad_()
        layer, times = PortfolioLayer(100.0, 0.05), []
        for _ in range(5):
            torch.cuda.synchronize()
            started = time.perf_counter()
            layer(mu, loadings, specific).square().sum().backward()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        lines.append(
            f"- {torch.cuda.get_device_name()}, T = 1,000 days of n = {n}: "
            f"{1000 * statistics.median(times[1:]):.0f} ms forward + backward."
        )
    return "\n".join(lines)


def measure(study: Study, rounds: int, device: str, title: str) -> dict[str, Any]:
    """Medians over ``rounds`` of the stages of both ways, taken in turn, and of whole epochs."""
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in LOSSES}
    for turn in range(rounds + 1):
        for name, loss in LOSSES.items():
            found = study.stages(loss)
            if turn:
                stages[name].append(found)
    epochs = study.epochs(device, rounds)
    one, two = stages.values()
    ratios = [sum(b.values()) / sum(a.values()) for a, b in zip(one, two, strict=True)]

    def training(found: dict[str, float]) -> float:
        return sum(found.values()) - found["validation"]

    return {
        "title": title,
        "rounds": rounds,
        "stages": {
            name: {s: statistics.median(f[s] for f in found) for s in STAGES}
            for name, found in stages.items()
        },
        "ratio": statistics.median(ratios),
        "training": statistics.median(
            training(b) / training(a) for a, b in zip(one, two, strict=True)
        ),
        "whole": {
            name: statistics.median(r["seconds"] for r in records)
            for name, records in epochs.items()
        },
    }


def text(report: dict[str, Any], more: list[str]) -> str:
    """The block between the markers of the page."""
    columns = list(report["stages"].values())
    body = [[stage, *(f"{c[stage]:.2f}" for c in columns)] for stage in STAGES]
    body.append(["**epoch**", *(f"**{sum(c.values()):.2f}**" for c in columns)])
    whole = report["whole"]
    lines = [
        f"{report['title']}, MLP 2×256, 5 days a step; seconds, medians of {report['rounds']} "
        f"epochs of each, in turn, {datetime.date.today()}, {torch.get_num_threads()} thread, "
        f"`python -m benchmarks.epoch`.",
        render.grid(["stage", *report["stages"]], body),
        f"- End-to-end / two-stage: **{report['ratio']:.2f}** (without validation "
        f"{report['training']:.2f}). Two-stage solves nothing while it trains here; the trainer "
        f"itself also reports the regret of its training days: {whole['two-stage']:.2f} s against "
        f"{whole['end-to-end']:.2f} s, {whole['end-to-end'] / whole['two-stage']:.2f} times.",
    ]
    return "\n\n".join([*lines[:2], "\n".join([lines[2], *more])]) + "\n"


def figure(report: dict[str, Any], path: Path) -> None:
    """Both epochs as bars of stacked stages."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    picture, axis = plt.subplots(figsize=(8.4, 3.2), layout="constrained")
    colours, left = plt.get_cmap("tab10"), np.zeros(len(report["stages"]))
    for i, stage in enumerate(STAGES):
        values = np.array([found[stage] for found in report["stages"].values()])
        axis.barh(list(report["stages"]), values, left=left, color=colours(i), label=stage)
        left += values
    for y, total in enumerate(left):
        axis.text(total, y, f" {total:.1f} s", va="center")
    axis.set(xlabel="seconds an epoch", xlim=(0, 1.12 * left.max()), title=report["title"])
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="outside lower center", ncols=4, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=130)
    plt.close(picture)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default=os.environ.get("BPQP_PROVIDER_URI"))
    parser.add_argument("--simulated", action="store_true", help="random data instead of CSI 300")
    parser.add_argument("--days", type=int, default=1941, help="of simulated data")
    parser.add_argument("--names", type=int, default=281, help="of simulated data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of the whole epochs")
    parser.add_argument("--large", metavar="NAMESxDAYS", help="one epoch of a memory-mapped market")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--update-docs", action="store_true")
    options = parser.parse_args(argv)
    if not options.simulated and not options.provider:
        parser.error("--provider (or $BPQP_PROVIDER_URI) names no Qlib data; or use --simulated.")
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    resolve_device(options.device)
    with torch_threads(1):
        more = [gpu_cases()]
        if options.large:
            names, days = map(int, options.large.split("x"))
            more.append(large_market(days, names, 158, options.folder))
        if options.simulated:
            study = simulated_study(None, options.days, options.names, 153)
            title = f"Simulated, {options.names} names, {options.days} days"
        else:
            study, title = real_study(options.provider), "CSI 300, train 2011 to 2016"
        report = measure(study, options.rounds, options.device, title)
        print(text(report, more))
        if options.figure or options.update_docs:
            figure(report, options.figure or FIGURE)
        if options.update_docs:
            render.update(PAGE, text(report, more), MARKS)


if __name__ == "__main__":
    main()
