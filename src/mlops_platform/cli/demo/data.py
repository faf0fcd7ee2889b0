"""The breast-cancer measurements of scikit-learn (Wolberg et al. 1995), laid out in time. Nothing is downloaded.

The set has no dates. Each patient gets one, the same in every run, so that there is a past to train on and a time after it:
the last two fifths of the patients come when training is over, and only the A/B test meets them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sklearn.datasets import load_breast_cancer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEATURE_SET = "breast_cancer_measurements"
ENTITY = "patient_id"
LABEL = "is_malignant"
_FIRST_VISIT = datetime(2024, 1, 1, 8, tzinfo=UTC)
_BETWEEN_VISITS = timedelta(hours=30)
_UNTIL_DIAGNOSIS = timedelta(days=3)
_HELD_OUT_SHARE = 0.4
_SEED = 20240101


@dataclass(frozen=True, slots=True)
class Patients:
    """All patients in the order in which they came: row `i` is patient `ids[i]`."""

    ids: Sequence[str]
    features: Sequence[str]
    measured_at: Sequence[datetime]
    values: "NDArray[np.float64]"
    is_malignant: Sequence[bool]

    @property
    def first_held_out(self) -> int:
        """From this row on the patients are held out."""
        return round(len(self.ids) * (1 - _HELD_OUT_SHARE))

    @property
    def references(self) -> list[str]:
        """The features with their set, as serving and training sets name them."""
        return [f"{FEATURE_SET}:{name}" for name in self.features]

    def labels(self) -> list[dict[str, Any]]:
        """What is known of the patients who are not held out: the diagnosis, and when it was made."""
        return [
            {
                ENTITY: self.ids[row],
                "event_timestamp": self.measured_at[row] + _UNTIL_DIAGNOSIS,
                LABEL: self.is_malignant[row],
            }
            for row in range(self.first_held_out)
        ]


def patients() -> Patients:
    """The set, in a fixed random order: as it ships, its patients are grouped by diagnosis."""
    import numpy as np

    shipped = load_breast_cancer()
    order = np.random.default_rng(_SEED).permutation(len(shipped.target))
    return Patients(
        ids=[f"patient-{row:04d}" for row in order],
        features=[str(name).replace(" ", "_") for name in shipped.feature_names],
        measured_at=[_FIRST_VISIT + place * _BETWEEN_VISITS for place in range(len(order))],
        values=shipped.data[order],
        # The set says 0 for malignant and 1 for benign.
        is_malignant=[bool(shipped.target[row] == 0) for row in order],
    )
