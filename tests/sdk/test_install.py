"""The client is light: it imports little, and works without the packages of the server."""

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
BLOCKED = (
    "import sys\n"
    "class Absent:\n"
    "    names = {'alembic', 'asyncpg', 'cryptography', 'duckdb', 'fastapi', 'msgspec', 'numpy', 'obstore', 'pandas',\n"
    "             'pyarrow', 'psutil', 'pydantic_settings', 'redis', 'scipy', 'sqlalchemy', 'starlette', 'structlog',\n"
    "             'uvicorn', 'uvloop'}\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] in self.names:\n"
    "            raise ModuleNotFoundError(name, name=name)\n"
    "sys.meta_path.insert(0, Absent())\n"
)


def run(code, *, home):
    environment = ENVIRONMENT | {"MLOPS_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_importing_the_client_loads_neither_wire_types_nor_optional_packages(tmp_path):
    heavy = "{'rich', 'pandas', 'numpy', 'pyarrow', 'typer', 'mlops_platform.contracts.tracking'}"
    done = run(f"import sys; from mlops_platform.sdk import Platform; print({heavy} & set(sys.modules))", home=tmp_path)
    assert done.stdout.strip() == "set()", done.stderr


def test_every_part_works_without_the_packages_of_the_server(tmp_path):
    code = BLOCKED + (
        "from mlops_platform.sdk import Platform\n"
        "p = Platform()\n"
        "print(*(type(getattr(p, n)).__name__ for n in ('registry', 'tracking', 'features', 'pipelines', 'ab', 'admin')))\n"
    )
    done = run(code, home=tmp_path)
    assert done.stdout.split() == ["Registry", "Tracking", "Features", "Pipelines", "ABTesting", "Admin"], done.stderr


def test_a_command_of_the_server_says_what_to_install(tmp_path):
    done = run(
        BLOCKED + "import sys; sys.argv = ['mlops', 'up']; from mlops_platform.cli.main import main; main()", home=tmp_path
    )
    assert done.returncode == 1
    assert "mlops-platform[server]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_without_pyarrow_says_what_to_install(tmp_path):
    code = BLOCKED + (
        "from mlops_platform.sdk import Platform\n"
        "class Table:\n"
        "    def __arrow_c_stream__(self, requested_schema=None): ...\n"
        "Platform().features.ingest('s', Table())\n"
    )
    assert "pip install pyarrow" in run(code, home=tmp_path).stderr
