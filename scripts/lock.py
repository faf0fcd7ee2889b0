"""Resolve the dependencies anew into requirements/*.lock: hashes, every platform, no addresses."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {
    "client.lock": ["pyproject.toml"],
    "server.lock": ["pyproject.toml", "--extra", "server", "--extra", "otel"],
    "dev.lock": ["pyproject.toml", "--all-extras", "--group", "dev"],
    # A stock MLflow, for tests and comparisons: an environment of its own, never beside ours.
    "mlflow.lock": ["--group", "mlflow"],
    # The client beside the libraries it records trainings of; requirements/torch.txt says why torch is not in it.
    "frameworks.lock": ["pyproject.toml", "--group", "frameworks", "--excludes", "requirements/torch.txt"],
}
OPTIONS = ["--universal", "--generate-hashes", "--no-header", "--no-emit-index-url", "--python-version", "3.11", "--quiet"]


def main() -> None:
    """Call uv, which stands beside this interpreter. Its own lock, bootstrap.lock, is changed by hand."""
    uv = str(Path(sys.executable).with_name("uv"))
    for name, sources in LOCKS.items():
        target = ROOT / "requirements" / name
        command = [uv, "pip", "compile", *OPTIONS, *sys.argv[1:], *sources, "--output-file", str(target)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own words
        print(f"{name}: {sum('==' in line for line in target.read_text(encoding='utf-8').splitlines())} packages")


if __name__ == "__main__":
    main()
