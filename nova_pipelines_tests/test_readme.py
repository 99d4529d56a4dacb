"""What README and docs tell a reader to type, to load and to open: it must be there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from nova_pipelines.cli.main import app
from nova_pipelines.nodes.registry import read_definition
from nova_pipelines_tests.fixtures.world import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
ROOT_COMMAND: Any = typer.main.get_command(app)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
#: the program itself, not a database or a folder of that name
NOVA = re.compile(r"(?<![\w/.-])nova ((?:[a-z]|--).*)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def code(text: str) -> Iterator[str]:
    """Every line of a shell, and every piece of code within a text."""
    for language, block in FENCE.findall(text):
        if language in ("", "console", "sh", "bash"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


def commands(text: str) -> list[list[str]]:
    """The arguments of every call of `nova`, without comments, redirections and what is only hinted at."""
    calls = (call for line in code(text) for call in NOVA.findall(line.partition(" #")[0]))
    return [[word for word in words(call) if word != "…"] for call in calls]


def words(call: str) -> Iterator[str]:
    """As a shell reads them, up to the end of the command (or of the quotes around all of it)."""
    lexer = shlex.shlex(call, posix=True, punctuation_chars="|;&<>()")
    lexer.whitespace_split = True
    try:
        yield from takewhile(lambda word: word[0] not in "|;&<>()", lexer)
    except ValueError:
        return


ALL = [(page.name, words) for page in PAGES for words in commands(page.read_text())]


def test_commands_are_found():
    """Or the test below would check nothing."""
    text = (
        "a `nova up --port 80`\n```console\n$ nova client add x \\\n    --name Y   # nova nonsense\n$ nova-db x\n```\n"
    )
    assert commands(text) == [["client", "add", "x", "--name", "Y"], ["up", "--port", "80"]]
    assert len(ALL) > 20
    assert {words[0] for _, words in ALL} >= {"migrate", "doctor", "up", "client", "workflow", "executions", "chain"}


@pytest.mark.parametrize(
    ("page", "words"), ALL, ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_every_command_exists(page: str, words: list[str]):
    assert problem(words) is None, f"{page}: nova {' '.join(words)}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clientele"], "no command 'clientele'"),
        (["client", "adopt", "x"], "no command 'adopt'"),
        (["up", "--prot", "80"], "--prot"),
        (["up", "--port"], "--port"),
        (["run", "--wait"], "too few"),
        (["chain", "show", "1", "2"], "too many"),
    ],
)
def test_a_wrong_command_would_be_found(words: list[str], said: str):
    assert said in (problem(words) or "").lower()


def problem(given: list[str]) -> str | None:
    """What is wrong with a call, by the commands that there are; None: nothing."""
    command, rest = ROOT_COMMAND, list(given)
    context = command.context_class(command, info_name="nova")
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context)
    try:
        values, left, _ = command.make_parser(context).parse_args(list(rest))
    except Exception as error:  # noqa: BLE001 - typer hides the classes of its parser
        return str(getattr(error, "message", None) or error)
    if left and not getattr(command, "commands", None):
        return f"too many arguments: {left}"
    missing = [param.name for param in command.params if param.required and not values.get(param.name)]
    # in a sentence a command may be named alone
    return f"too few arguments: {missing}" if missing and rest else None


# files, targets, the example


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link and not link.startswith("mailto:")]
    for link in links:
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.read_text()), link


def anchors(text: str) -> set[str]:
    """The headings of a page, in the form that GitHub links to."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path):
    named = [span for span in SPAN.findall(page.read_text()) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", span)]
    own = [name for name in named if (ROOT / name.split("/")[0]).exists() and not name.startswith(".nova")]
    assert [name for name in own if not (ROOT / name).exists()] == []


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for page in PAGES for word in re.findall(r"(?:\$ |`)make ([a-z-]+)", page.read_text())}
    assert named >= {"demo", "test", "up", "help"}
    assert named <= targets


def test_the_example_of_the_readme_is_valid():
    (text,) = [block for language, block in FENCE.findall(README.read_text()) if language == "yaml"]
    definition = read_definition(text, source="README.md")
    assert definition.trigger is not None
    assert len(text.splitlines()) <= 15


def test_readme_holds_what_the_demo_prints():
    """No place is left for something that is still to come."""
    assert "<!--" not in README.read_text()
