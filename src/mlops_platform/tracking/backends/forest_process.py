"""The program of a process of its own: reads columns, grows a random forest, writes what each column is worth.

Nothing imports this module. The server starts it as a program, so that scikit-learn is never loaded into a server, its
work never holds up an event loop, and its memory is free when it ends.
"""

import json
import sys
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor

_TREES = 60
_SHUFFLED = 20
_REPEATS = 3


def main() -> None:
    """One question on standard input, one answer on standard output."""
    question = json.load(sys.stdin)
    json.dump(weighed(question["columns"], question["target"]), sys.stdout)


def weighed(columns: list[list[float | None]], target: list[float]) -> dict[str, Any]:
    """The importance of each column, and the score on runs that a tree did not see."""
    x = np.array([[np.nan if value is None else value for value in column] for column in columns]).T
    y = np.array(target)
    # A forest of single precision: what does not fit is as far out as can be.
    x = np.clip(x, -3e38, 3e38)
    widest = np.abs(y).max()
    y = y / widest if widest else y
    forest = RandomForestRegressor(_TREES, random_state=0, oob_score=True, min_samples_leaf=2, max_features=1 / 3)
    forest.fit(x, y)
    strongest = np.argsort(-forest.feature_importances_, kind="stable")[:_SHUFFLED]
    shuffled = {int(number): _lost(forest, x, y, int(number)) for number in strongest}
    score = float(forest.oob_score_)
    return {
        "score": score if np.isfinite(score) else None,
        "importances": [float(value) for value in forest.feature_importances_],
        "permutations": {str(number): lost for number, lost in shuffled.items()},
    }


def _lost(forest: Any, x: Any, y: Any, number: int) -> tuple[float, float]:
    """How much of R² is lost, on average, when the column is shuffled."""
    rng = np.random.default_rng(number)
    whole = forest.score(x, y)
    losses = []
    for _ in range(_REPEATS):
        other = x.copy()
        other[:, number] = rng.permutation(other[:, number])
        losses.append(whole - forest.score(other, y))
    return float(np.mean(losses)), float(np.std(losses))


if __name__ == "__main__":
    main()
