"""What holds for the source as text and as trees."""

import ast
import subprocess
from pathlib import Path

import pytest

import mlops_platform
from mlops_platform.core.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mlops_platform"
MODULES = {str(path.relative_to(ROOT)): path for path in sorted(SOURCE.rglob("*.py"))}
SERVER = {
    name: path
    for name, path in MODULES.items()
    if not name.startswith(("src/mlops_platform/sdk/", "src/mlops_platform/cli/"))
}
REPOSITORIES = {name: path for name, path in MODULES.items() if "repository" in name}

# Loading any of these runs code that is in the data. No server process does.
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
# What runs code on purpose, each with its reason.
MAY_RUN_CODE: dict[str, str] = {}

# Statements that do not begin in the caller's project, each with its reason.
_OF_PLATFORM = "a background duty, for every project; the rows that it gives carry theirs"
_READ_BEFORE = "by the id of a row that the caller has read, and holds, within its project"
OUTSIDE_PROJECTS = {
    "ab_testing/repository/evidence.py": {"_tagged": "a part of a select that begins with in_project"},
    "features/repository/rows.py": {"overdue_online": _OF_PLATFORM, "clock_us": "asks for the time alone"},
    "pipelines/repository/dispatch.py": dict.fromkeys(("limit_idling", "results_of", "renew", "expired"), _OF_PLATFORM),
    "pipelines/repository/firing.py": dict.fromkeys(
        ("claim_due", "database_time", "fired", "count_open_runs", "claim_queued"), _OF_PLATFORM
    ),
    "pipelines/repository/runs.py": dict.fromkeys(
        ("start_run", "set_run_state", "cancel_tasks", "has_open_tasks", "reset_unsuccessful"), _READ_BEFORE
    ),
    "pipelines/repository/settlement.py": dict.fromkeys(
        (
            "lock_runs_of",
            "running_tasks",
            "end_attempts",
            "move_tasks",
            "fold_items",
            "release_downstream",
            "fail_downstream",
            "ended_runs",
        ),
        _OF_PLATFORM,
    ),
    "tracking/repository/leases.py": {"claim_silent": _OF_PLATFORM},
    "tracking/repository/removal.py": dict.fromkeys(("claim_outlived", "claim_emptied"), _OF_PLATFORM),
    "registry/repository/models.py": {"of_versions": "a part of a select that begins with visible_to"},
}
SCOPES = {"visible_to", "in_project"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lines_of(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


class TestSize:
    def test_no_module_is_longer_than_500_lines(self):
        assert {name: lines_of(path) for name, path in MODULES.items() if lines_of(path) > 500} == {}

    def test_no_test_module_is_longer_than_600_lines(self):
        tests = (ROOT / "tests").rglob("*.py")
        assert {str(path): lines_of(path) for path in tests if lines_of(path) > 600} == {}

    def test_no_function_is_longer_than_70_lines(self):
        long = {
            f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno
            for name, path in MODULES.items()
            if "migrations" not in name
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > 70
        }
        assert long == {}


class TestUnsafeCode:
    @pytest.mark.parametrize("name", SERVER)
    def test_no_server_module_unpickles_or_evaluates(self, name):
        found = []
        for node in ast.walk(tree_of(SERVER[name])):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names if alias.name.partition(".")[0] in UNSAFE_MODULES]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNSAFE_MODULES:
                found.append(str(node.module))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                found.append(node.func.id)
            elif isinstance(node, ast.keyword) and node.arg in {"shell", "allow_pickle"}:
                found.append(node.arg)
        assert found == [] or name in MAY_RUN_CODE

    def test_every_exemption_is_still_needed(self):
        assert set(MAY_RUN_CODE) <= set(SERVER)


class TestProjects:
    """Every select, update and delete of a repository begins in the caller's project."""

    @staticmethod
    def statements(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Functions that begin a statement."""
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        begins = {"select", "update", "delete", "text"}
        return [
            function
            for function in functions
            if any(
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in begins
                for node in ast.walk(function)
            )
        ]

    @pytest.mark.parametrize("name", REPOSITORIES)
    def test_a_statement_that_is_built_once_names_the_project(self, name):
        """What stands outside of functions: built for `SOMEONE`. A setting is no statement on rows."""
        statements = [it for it in tree_of(REPOSITORIES[name]).body if isinstance(it, ast.Assign) and self.is_built(it)]
        outside = [it for it in statements if not self.names_in(it) & (SCOPES | {"project_id", "set_config"})]
        assert [ast.unparse(it.targets[0]) for it in outside] == []

    @staticmethod
    def is_built(node: ast.AST) -> bool:
        begins = {"select", "update", "delete"}
        return any(
            isinstance(it, ast.Call) and isinstance(it.func, ast.Name) and it.func.id in begins for it in ast.walk(node)
        )

    @staticmethod
    def names_in(node: ast.AST) -> set[str]:
        names = {it.id for it in ast.walk(node) if isinstance(it, ast.Name)}
        names |= {it.attr for it in ast.walk(node) if isinstance(it, ast.Attribute)}
        texts = " ".join(it.value for it in ast.walk(node) if isinstance(it, ast.Constant) and isinstance(it.value, str))
        return names | ({"project_id"} if "project_id" in texts else set())

    @pytest.mark.parametrize("name", REPOSITORIES)
    def test_a_statement_names_the_project(self, name):
        tree = tree_of(REPOSITORIES[name])
        scoped = {
            it.name
            for it in ast.walk(tree)
            if isinstance(it, ast.FunctionDef)
            if self.names_in(it) & (SCOPES | {"project_id", "project"})
        }
        outside = [
            function.name
            for function in self.statements(tree)
            if not self.names_in(function) & (SCOPES | {"project_id", "project"} | scoped)
        ]
        assert set(outside) == set(OUTSIDE_PROJECTS.get(name.removeprefix("src/mlops_platform/"), {}))


class TestGeneratedPages:
    def test_the_settings_page_is_current(self):
        """Write it anew with: PYTHONPATH=src python scripts/settings_reference.py"""
        script = ROOT / "scripts" / "settings_reference.py"
        spec: dict[str, object] = {"__name__": "settings_reference", "__file__": str(script)}
        code = compile(script.read_text(encoding="utf-8"), str(script), "exec")
        exec(code, spec)  # noqa: S102  # a script of this repository
        page = spec["page"]
        assert callable(page)
        assert (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8") == page()


class TestDocuments:
    def test_decisions_are_numbered_once_and_titled_with_their_number(self):
        records = sorted((ROOT / "docs" / "adr").glob("*.md"))
        numbers = [int(path.name[:4]) for path in records]
        assert len(numbers) == len(set(numbers))
        assert [path.name for path in records if not path.read_text().startswith(f"# {int(path.name[:4])}. ")] == []

    def test_no_file_names_a_place_of_one_machine(self):
        tracked = subprocess.run(
            ["git", "ls-files", "docs", "src", "tests", "scripts"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        places = ("/" + "work/", "/" + "root/")
        naming = [
            name
            for name in tracked.stdout.split()
            if name.endswith((".py", ".md", ".txt", ".json"))
            and any(place in (ROOT / name).read_text(encoding="utf-8") for place in places)
        ]
        assert naming == []


def test_every_documented_setting_is_read_by_something():
    """A setting that nothing reads is a promise that nobody keeps."""
    package = Path(mlops_platform.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    own = sources.pop(package / "core" / "settings.py")
    ports = sources[package / "server" / "catalog.py"]
    everything = "\n".join(sources.values())
    unread = [
        name
        for name in Settings.model_fields
        if f".{name}" not in everything and f"self.{name}" not in own and f'"{name}"' not in ports
    ]
    assert unread == []
