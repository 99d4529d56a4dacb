"""The rules of the house, held by the programs that know them; and those that no program knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova_pipelines_tests.fixtures.world import ROOT

PACKAGE = ROOT / "nova_pipelines"
MAX_FILE, MAX_FUNCTION = 350, 50
#: revisions are frozen lists of columns: to split them would only hide what a table looks like
FROZEN = PACKAGE / "database" / "migrations" / "versions"
#: written so that this file does not match its own patterns
MARKS = r"\b([T]ODO|[F]IXME|[H]ACK|[T]BD)\b|#.*\b[X]XX\b"
HOSTS = r"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|(ghcr|quay|docker|gcr)[.]io|[a]rtifactory|simple/[p]ip"
PLACES = r"(^|[^A-Za-z0-9_.~}])/([h]ome|[U]sers|[r]oot|[w]ork)/"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--no-cache", "--check", "--diff", "."],
        ["lint-imports", "--no-cache"],
        ["basedpyright"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
@pytest.mark.timeout(600)
def test_the_checkers_are_content(command: list[str]):
    program = Path(sys.executable).parent / command[0]
    assert program.exists(), f"{program} is missing: pip install -e '.[dev]'"
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 80
    return found


def test_no_file_is_too_long():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    long = {name: lines for name, lines in long.items() if lines > MAX_FILE}
    assert not long, f"more than {MAX_FILE} lines, to be split: {long}"


def test_no_function_is_too_long():
    """Its body: a signature and a docstring are there to be looked up, not to be followed."""
    long = {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": length
        for path in modules()
        if path.parent != FROZEN
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (length := body_lines(function)) > MAX_FUNCTION
    }
    assert not long, f"more than {MAX_FUNCTION} lines, to be split: {long}"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    last = function.end_lineno
    assert last is not None
    return last - body[0].lineno + 1 if body else 0


def test_every_module_says_what_it_owns():
    texts = {path: path.read_text() for path in modules()}
    silent = [str(path.relative_to(ROOT)) for path, text in texts.items() if text.strip() and not docstring(text)]
    assert silent == []


def docstring(text: str) -> str | None:
    return ast.get_docstring(ast.parse(text))


def test_decorators_of_dagster_and_typer_see_real_annotations():
    """Under `from __future__ import annotations` an op with a config parameter and a command fail."""
    wrong = [
        str(path.relative_to(ROOT))
        for path in modules()
        if "from __future__ import annotations" in (text := path.read_text())
        and re.search(r"^@(dg\.\w+|dagster\.\w+|\w*app\.(command|callback))\b", text, re.MULTILINE)
    ]
    assert wrong == []


# what is installed


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!]*", line)]
    assert wrong == [], "constraints.txt holds lines of the form name==version, and nothing else"
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines)}


def requirements() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    yield from project["dependencies"]
    for extra in project["optional-dependencies"].values():
        yield from extra


def test_every_requirement_is_constrained_to_one_version():
    known = constraints()
    names = {normal(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in requirements()}
    assert len(names) > 20
    assert names - known.keys() == set()


def test_dagster_is_pinned_exactly():
    """Private parts of it are used: another version is another program."""
    known = constraints()
    pinned = [requirement for requirement in requirements() if requirement.startswith("dagster")]
    assert {requirement.partition("==")[0] for requirement in pinned} >= {"dagster", "dagster-webserver"}
    for requirement in pinned:
        name, exactly, version = requirement.partition("==")
        assert exactly, requirement
        assert known[normal(name)] == version


# what must not be in the repository


def git(*arguments: str) -> list[str]:
    """Lines of git's answer about tracked files, and those that would become so."""
    done = subprocess.run(["git", "-c", "safe.directory=*", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # 1: git grep found nothing
    return done.stdout.splitlines()


def files() -> list[str]:
    found = git("ls-files", "--cached", "--others", "--exclude-standard")
    assert "pyproject.toml" in found
    return found


def found(pattern: str) -> list[str]:
    return git("grep", "--untracked", "-nIE", pattern)


def test_no_lock_files():
    lock = re.compile(r"(^|/)([^/]+[.]lock|(package|npm-shrinkwrap|pnpm)-?lock[.](json|yaml)|Pipfile[.]lock)$")
    assert [name for name in files() if lock.search(name)] == []


def test_nothing_is_left_to_be_done():
    assert found(MARKS) == []


def test_no_host_of_a_registry_is_named():
    assert found(HOSTS) == []


def test_no_path_of_a_machine_is_named():
    assert found(PLACES) == []
    assert git("grep", "--untracked", "-nIF", f"{ROOT}/") == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MARKS, "x = 1  # TO" + "DO: later"),
        (HOSTS, "https://py" + "pi.org/simple"),
        (PLACES, "see /ho" + "me/ana/nova"),
        (PLACES, "cd /ro" + "ot/x"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: str, text: str):
    assert re.search(pattern, text)
