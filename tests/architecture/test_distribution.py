"""What is installed: a light client, locks with hashes, licences that may be shipped."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.MULTILINE)

WITHOUT_SERVER = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} belongs to the server")

sys.meta_path.insert(0, Blocked())
import mlops_platform.sdk, mlops_platform.cli, mlops_platform.contracts
for package in (mlops_platform.contracts, mlops_platform.sdk):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
importlib.import_module("mlops_platform.cli.main")
"""

ALLOWED = re.compile(
    r"MIT|BSD|Apache|PSF|Python Software Foundation|ISC|PostgreSQL|0BSD|Unlicense|CC0|Zlib|HPND|MIT-0|3-Clause|2-Clause",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\bA?GPL|LGPL|MPL|Mozilla|EUPL|SSPL|Business Source|Commons Clause", re.IGNORECASE)
# Read by a person, for packages whose metadata do not say it, or say more than one thing.
READ = {
    "certifi": "MPL-2.0 data file only; not shipped with the platform's own code",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: Path) -> set[str]:
    return {normal(name) for name, _ in NAME.findall(lock.read_text(encoding="utf-8"))}


class TestClient:
    def test_it_has_at_most_six_direct_dependencies(self):
        assert len(PROJECT["dependencies"]) <= 6

    def test_it_imports_without_anything_of_the_server(self):
        client = pinned(ROOT / "requirements" / "client.lock")
        roots = {
            name.partition("/")[0].removesuffix(".py")
            for package in pinned(ROOT / "requirements" / "server.lock") - client
            for name in _top_level(package)
        }
        script = f"BLOCKED = {sorted(roots)!r}\n{WITHOUT_SERVER}"
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=_environment(), check=False
        )
        assert ran.returncode == 0, ran.stderr


class TestLocks:
    @pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
    def test_every_pin_has_hashes_and_no_address_stands_in_it(self, lock):
        text = lock.read_text(encoding="utf-8")
        blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
        assert [block.split()[0] for block in blocks if NAME.match(block) and "--hash=sha256:" not in block] == []
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links|git\+", text)

    def test_what_is_declared_is_locked(self):
        declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]]
        names = {normal(re.split(r"[\[<>=;!~ ]", line)[0]) for line in declared}
        assert names - pinned(ROOT / "requirements" / "server.lock") == set()


class TestLicences:
    @pytest.mark.parametrize("package", sorted(pinned(ROOT / "requirements" / "server.lock")))
    def test_what_is_shipped_may_be_shipped(self, package):
        try:
            found = importlib.metadata.metadata(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip("for another platform or Python")
        fields = ("License-Expression", "License", "Classifier")
        values = [value[:200] for field in fields for value in found.get_all(field) or []]
        said = " ".join(value for value in values if " :: " not in value or value.startswith("License"))
        if package not in READ:
            assert ALLOWED.search(said), said
            assert not COPYLEFT.search(said) or " OR " in said, said


def _top_level(package: str) -> set[str]:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {file.parts[0] for file in files if file.suffix == ".py" and not file.parts[0].endswith((".dist-info", ".data"))}


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
