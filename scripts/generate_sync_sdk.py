"""Write the synchronous client from the asynchronous one: `python scripts/generate_sync_sdk.py [--check]`.

`sdk/_async/*.py` is written by hand; `sdk/_sync/*.py` is the same text with `async` and `await` taken out and the names
below replaced, token by token. `backend.py` is where the two truly differ and is written twice. `--check` changes nothing
and fails when a generated file is stale.
"""

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

SDK = Path(__file__).resolve().parent.parent / "src" / "mlops_platform" / "sdk"
BY_HAND = {"backend.py", "__init__.py"}
HEADER = "# Generated from sdk/_async/{name} by scripts/generate_sync_sdk.py: change that file, then run the script.\n"
FIX = ["check", "--quiet", "--fix-only", "--unsafe-fixes", "--select", "I,UP028"]
DROPPED = {"async", "await"}
RENAMED = {
    "_async": "_sync",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "aread": "read",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "asynccontextmanager": "contextmanager",
    "asynchronous": "synchronous",
}
ASYNC_NAME = re.compile(r"\bAsync(?=[A-Z])")
ASYNC_WORD = re.compile(r"\b(async|await) ")


def to_sync(source: str) -> str:
    """The same module without async: every other character stays where it was."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    pieces: list[str] = []
    done = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        text = _replacement(token)
        if text is None:
            continue
        pieces += [source[done:begin], text]
        done = end + 1 if token.type == tokenize.NAME and token.string in DROPPED else end
    return "".join([*pieces, source[done:]])


def _replacement(token: tokenize.TokenInfo) -> str | None:
    if token.type == tokenize.NAME:
        if token.string in DROPPED:
            return ""
        return RENAMED.get(token.string) or ASYNC_NAME.sub("", token.string)
    if token.type in {tokenize.STRING, tokenize.COMMENT}:
        return ASYNC_WORD.sub("", ASYNC_NAME.sub("", token.string))
    return None


def generated(path: Path) -> str:
    """What the synchronous twin of `path` must hold, formatted as the house formats."""
    text = HEADER.format(name=path.name) + to_sync(path.read_text(encoding="utf-8"))
    target = str(SDK / "_sync" / path.name)
    fixed = _ruff([*FIX, "--stdin-filename", target, "-"], text)
    return _ruff(["format", "--quiet", "--stdin-filename", target, "-"], fixed)


def _ruff(arguments: list[str], text: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run([str(ruff), *arguments], input=text, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


def stale() -> list[Path]:
    """The generated files that are not what their sources say, and those that have no source."""
    wrong = [
        SDK / "_sync" / source.name
        for source in sources()
        if not (target := SDK / "_sync" / source.name).exists() or target.read_text(encoding="utf-8") != generated(source)
    ]
    return wrong + [path for path in (SDK / "_sync").glob("*.py") if not (SDK / "_async" / path.name).exists()]


def sources() -> list[Path]:
    """The modules from which a synchronous twin is made."""
    return sorted(path for path in (SDK / "_async").glob("*.py") if path.name not in BY_HAND)


def main() -> int:
    """Generate, or only check."""
    if "--check" in sys.argv[1:]:
        wrong = stale()
        for path in wrong:
            print(f"stale: {path.relative_to(SDK)} (run scripts/generate_sync_sdk.py)", file=sys.stderr)
        return 1 if wrong else 0
    for source in sources():
        (SDK / "_sync" / source.name).write_text(generated(source), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
