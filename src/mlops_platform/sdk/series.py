"""Series for charts, as tables."""

from typing import Any

from mlops_platform.contracts import notebook
from mlops_platform.contracts.tracking_metrics import SeriesAnswer
from mlops_platform.sdk import frames
from mlops_platform.sdk.contexts import spelled

SHOWN = 20


class Curves(SeriesAnswer):
    """Several metrics of several runs. As a table it has a row for each point: `run_id`, `key`, `x`, `y`."""

    def to_arrow(self) -> Any:
        """All points as a table of pyarrow."""
        return frames.as_arrow(self._columns())

    def to_pandas(self) -> Any:
        """All points as a frame of pandas; `pivot(index="x", columns=["run_id", "key"], values="y").plot()` draws it."""
        return frames.as_pandas(self._columns())

    def to_polars(self) -> Any:
        """All points as a frame of polars."""
        return frames.as_polars(self._columns())

    def rows(self) -> list[dict[str, Any]]:
        """All points, a dictionary each."""
        columns = self._columns()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _columns(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"run_id": [], "key": [], "x": [], "y": []}
        for series in self.items:
            columns["run_id"] += [series.run_id] * len(series.x)
            columns["key"] += [spelled(series.key, series.context)] * len(series.x)
            columns["x"] += series.x
            columns["y"] += series.y
        return columns

    def _repr_html_(self) -> str:
        rows = [
            {
                "run_id": series.run_id,
                "key": spelled(series.key, series.context),
                "points": series.points,
                "shown": len(series.x),
            }
            for series in self.items[:SHOWN]
        ]
        return notebook.table(rows, note="" if len(self.items) <= SHOWN else f"the first {SHOWN} of {len(self.items)}")
