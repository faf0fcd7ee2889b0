"""How much of each package the tests run, from coverage's JSON; exit 1 when any is below what is promised.

coverage combine && coverage json -o coverage.json && python scripts/coverage_by_package.py coverage.json
"""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

PROMISED = 90.0
PACKAGES = ("registry", "tracking", "features", "pipelines", "ab_testing", "core", "sdk", "cli", "server", "contracts")
_COUNTED = (
    "num_statements",
    "num_branches",
    "covered_lines",
    "covered_branches",
    "missing_lines",
    "missing_branches",
)
_SHOWN = 3


def main() -> None:
    """Print a line for each package, and the files that miss most."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    packages = _by_package(report["files"])
    print(f"{'package':<12}{'statements':>12}{'branches':>10}{'missed':>8}{'covered':>10}")
    is_enough = True
    for name in PACKAGES:
        files = packages[name]
        total: Counter[str] = sum((Counter(summary) for summary in files.values()), Counter())
        covered = _percent(total)
        is_enough &= covered >= PROMISED
        mark = "" if covered >= PROMISED else f"   below {PROMISED:.0f} %"
        print(
            f"{name:<12}{total['num_statements']:>12}{total['num_branches']:>10}{_missed(total):>8}{covered:>8.1f} %{mark}"
        )
        if mark:
            for path in sorted(files, key=lambda it: -_missed(files[it]))[:_SHOWN]:
                print(f"    {path}: {_missed(files[path])} missed, {_percent(files[path]):.0f} %")
    sys.exit(0 if is_enough else 1)


def _by_package(files: dict[str, dict[str, dict[str, int]]]) -> dict[str, dict[str, Counter[str]]]:
    found: dict[str, dict[str, Counter[str]]] = defaultdict(dict)
    for path, measured in files.items():
        inner = path.replace("\\", "/").rpartition("mlops_platform/")[2]
        found[inner.partition("/")[0]][inner] = Counter({key: measured["summary"][key] for key in _COUNTED})
    return found


def _percent(total: Counter[str]) -> float:
    """As coverage counts: statements and branches alike."""
    everything = total["num_statements"] + total["num_branches"]
    return 100 * (total["covered_lines"] + total["covered_branches"]) / everything if everything else 0.0


def _missed(total: Counter[str]) -> int:
    return total["missing_lines"] + total["missing_branches"]


if __name__ == "__main__":
    main()
