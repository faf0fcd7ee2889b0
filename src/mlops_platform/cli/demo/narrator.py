"""What the demo says, with progress on a terminal and plain lines elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from mlops_platform.cli.console import printable
from mlops_platform.cli.lineage import tree
from mlops_platform.contracts.ab_testing import ABTestResults
from mlops_platform.contracts.features import TrainingSet
from mlops_platform.contracts.registry import LineageGraph
from mlops_platform.sdk.settings import Service

STEPS = 5


class Step:
    """One step that is going on."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self.text = ""

    def advance(self, done: int, of: int) -> None:
        """So many of so many parts are done."""
        self._progress.update(self._task, completed=done, total=of)

    def done(self, text: str) -> None:
        """What the step has made."""
        self.text = text


class Narrator:
    """Tells the story on one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A numbered step with its progress; afterwards one line with what it made and how long it took."""
        self._number += 1
        heading, began = f"{self._number}/{STEPS}  {title}", monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        # Where no cursor can go back, a bar would only leave empty lines.
        progress = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        step = Step(progress, progress.add_task(heading, total=None))
        with progress:
            yield step
        self._console.print(
            f"[bold]{heading}[/bold]  {_safe(step.text)}  [dim]{monotonic() - began:.1f} s[/dim]", soft_wrap=True
        )

    def say(self, text: str) -> None:
        self._console.print(f"     {_safe(text)}", soft_wrap=True)

    def ranking(self, ranking: Sequence[Mapping[str, Any]], registered: Mapping[str, str]) -> None:
        """The candidates, the best first, and which of them became versions."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("     candidate", "loss", "accuracy", "AUC", "registered as"):
            table.add_column(heading, overflow="fold")
        for one in ranking:
            metrics = one["metrics"]
            table.add_row(
                f"     {_safe(one['name'])}",
                f"{metrics['validation_log_loss']:.4f}",
                f"{metrics['validation_accuracy']:.3f}",
                f"{metrics['validation_auc']:.4f}",
                f"version {_safe(registered[one['run_id']])}" if one["run_id"] in registered else "",
            )
        self._console.print(table)

    def results(self, results: ABTestResults) -> None:
        """What the evidence says, with its uncertainty."""
        metric = results.metrics[0]
        versions = {variant.variant: variant.model_version for variant in results.variants}
        for arm in metric.variants:
            interval = f", interval {_interval(arm.mean_interval, percent=True)}" if arm.mean_interval else ""
            self.say(f"{arm.variant} ({versions[arm.variant]}): right about {arm.sum:.0f} of {arm.n}{interval}")
        comparison = metric.comparisons[0]
        if comparison.difference is None:
            self.say(f"difference: {comparison.reason or 'cannot be computed'}")
        else:
            level = f"{results.confidence_level:.0%}"
            p_value = "" if comparison.p_value is None else f", p = {comparison.p_value:.3f}"
            self.say(
                f"difference {comparison.difference * 100:+.2f} points, {level} confidence interval"
                f" {_interval(comparison.difference_interval, percent=True)}{p_value}"
            )
        self.say(_split(results))
        for warning in results.warnings:
            self.say(f"warning: {warning.message}")

    def lineage(self, graph: LineageGraph, training_set: TrainingSet) -> None:
        """The path from the alias to the feature rows."""
        self.say("Where it comes from:")
        for line in tree(graph):
            self._console.print(f"       {_safe(line)}", soft_wrap=True)
        sources = ", ".join(
            f"{len(source.features)} features of {source.feature_set}/{source.version}" for source in training_set.sources
        )
        self.say(
            f"The training set holds {training_set.row_count} rows ({sources}), as known until"
            f" {training_set.known_until:%Y-%m-%d %H:%M:%S} UTC, SHA-256 {training_set.digest}"
        )

    def where_next(self, urls: Mapping[Service, str], outcome: Mapping[str, Any]) -> None:
        """How to look at what was made."""
        self._console.print(f"\n[bold]Done in {outcome['seconds']:.1f} s.[/bold] Look at it:")
        commands = (
            f"mlops lineage {outcome['model']}@champion",
            f"mlops model versions {outcome['model']}",
            f"mlops run list -e {outcome['experiment']}",
            f"mlops pipeline logs {outcome['pipeline_run_id']}",
            f"mlops ab results {outcome['ab_test']}",
            "mlops audit list",
        )
        for command in commands:
            self._console.print(f"  {_safe(command)}", soft_wrap=True)
        for service, url in urls.items():
            self._console.print(f"  {service.value:<12} {_safe(url)}/docs", soft_wrap=True)


def _split(results: ABTestResults) -> str:
    units = " : ".join(str(variant.units) for variant in results.variants)
    if results.srm.p_value is None:
        return f"split {units}: {results.srm.reason or 'not checked'}"
    verdict = "is not what the weights say" if results.srm.is_mismatch else "is what the weights say"
    return f"split {units} {verdict} (sample ratio check, p = {results.srm.p_value:.3f})"


def _interval(interval: Any, *, percent: bool) -> str:
    if interval is None:
        return "unknown"
    scale = 100 if percent else 1
    return f"{interval.low * scale:.1f} to {interval.high * scale:.1f}{' %' if percent else ''}"


def _safe(text: str) -> str:
    """Names come from the server: none of them steers the terminal or the markup."""
    return escape(printable(text))
