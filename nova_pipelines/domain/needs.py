"""What Python code of a node needs from outside, found by reading it: the network, and a client's credentials.

Nothing is run. It knows neither clients nor sandboxes; what cannot be seen (`getattr` tricks) is not found here and
fails in the sandbox, which has neither network nor credentials for a client that is not marked.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from nova_pipelines.domain.workflow import Definition

#: keys of the old dialect's context that a client's credentials fill, by the kind of the credential
CREDENTIAL_KEYS: Mapping[str, frozenset[str]] = {
    "email": frozenset(
        {"imap_host", "imap_port", "smtp_host", "smtp_port", "email_user", "email_password"}
        # without it `context.get("sender_whitelist", [])` would let everybody write
        | {"sender_whitelist"}
    ),
    "database": frozenset({"db_host", "db_port", "db_name", "db_user", "db_password"}),
}
#: keys whose values are hidden wherever they appear
SECRET_KEYS = frozenset({"email_password", "db_password"})
#: keys that say to which server a secret goes
ADDRESS_KEYS: Mapping[str, frozenset[str]] = {
    "email_password": frozenset({"imap_host", "imap_port", "smtp_host", "smtp_port"}),
    "db_password": frozenset({"db_host", "db_port"}),
}
#: given to code together with credentials; needs none of them
SLUG_KEY = "client_slug"
_KEYS = frozenset[str]().union(*CREDENTIAL_KEYS.values())
#: how far `a = context; b = a; …` is followed
_NAMES_OF_NAMES = 5

#: modules that are of no use without a network; what lies below them counts too
NETWORK_MODULES = frozenset(
    {"imaplib", "smtplib", "poplib", "ftplib", "nntplib", "telnetlib", "socket", "socketserver", "ssl"}
    | {"http.client", "http.server", "urllib.request", "xmlrpc.client", "xmlrpc.server", "webbrowser"}
    | {"requests", "httpx", "aiohttp", "urllib3", "httplib2", "pycurl", "websocket", "websockets"}
    | {"psycopg", "psycopg2", "pg8000", "asyncpg", "pymysql", "MySQLdb", "mysql.connector", "pymongo", "redis"}
    | {"imap_tools", "imapclient", "aioimaplib", "aiosmtplib", "aiosmtpd", "exchangelib", "paramiko"}
    | {"boto3", "botocore", "googleapiclient", "openai", "anthropic", "twilio", "sendgrid"}
)


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one piece of code: modules that need a network, credential keys that it reads, and those that it sets."""

    modules: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    sets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """What a node of a definition needs and nobody gives it."""

    node_id: str
    modules: tuple[str, ...]
    keys: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"the network ({', '.join(self.modules)})"] if self.modules else []
        parts += [f"credentials ({', '.join(self.keys)})"] if self.keys else []
        return f"node {self.node_id!r} needs {' and '.join(parts)}"


def unmet(
    definition: Definition, *, network: bool, available: Collection[str], initial: Collection[str]
) -> list[NodeNeeds]:
    """What the nodes of a definition need beyond what an execution has, in the order of the file.

    `network`: whether its sandbox has one; `available`: keys that the client's credentials give; `initial`: keys
    of the execution's first context. A key that every way to a node sets is the workflow's own and counts as there.
    """
    needs = {node.id: needs_of(getattr(node, "code", None) or "") for node in definition.nodes}
    before = _set_before(definition, needs) if any(need.reads for need in needs.values()) else {}
    found: list[NodeNeeds] = []
    for node_id, need in needs.items():
        keys = tuple(key for key in need.reads if key not in {*available, *initial, *before.get(node_id, ())})
        modules = () if network else need.modules
        if keys or modules:
            found.append(NodeNeeds(node_id, modules, keys))
    return found


def _set_before(definition: Definition, needs: Mapping[str, Needs]) -> dict[str, frozenset[str]]:
    """For each node the credential keys that were set whichever way led to it."""
    sources: dict[str, list[str]] = {node.id: [] for node in definition.nodes}
    for edge in definition.edges:
        sources[edge.target].append(edge.source)
    before: dict[str, frozenset[str]] = {}
    todo = [node.id for node in definition.nodes]
    while todo:  # a valid definition has no cycle: every node is settled once its sources are
        node_id = todo.pop()
        waiting = [source for source in sources[node_id] if source not in before]
        if waiting:
            todo += [node_id, *waiting]
        elif node_id not in before:
            ways = [before[source] | needs[source].sets for source in sources[node_id]]
            before[node_id] = ways[0].intersection(*ways[1:]) if ways else frozenset()
    return before


@lru_cache(maxsize=4096)
def needs_of(code: str) -> Needs:
    """What a piece of code needs. Code that Python cannot parse needs nothing: it is refused elsewhere."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Needs()
    modules = {name for node in ast.walk(tree) for name in _imported(node) if _needs_network(name)}
    names = _names_of_context(tree)
    sets = dict(_sorted_down(_written(tree, names)))
    reads = {key for key, line in _read(tree, names) if line <= sets.get(key, line)}
    return Needs(tuple(sorted(modules)), tuple(sorted(reads)), frozenset(sets))


def _sorted_down(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Later lines first: of several the first line in the code wins in a dict."""
    return sorted(found, key=lambda pair: -pair[1])


def _needs_network(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in NETWORK_MODULES for length in range(1, len(parts) + 1))


def _imported(node: ast.AST) -> Iterator[str]:
    """The modules that a statement or a call with a constant imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        whole = _needs_network(node.module)
        # `from urllib import request` names the module only together with what it takes from it
        yield from [node.module] if whole else (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args:
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        first = _text(node.args[0])
        if name in ("__import__", "import_module") and first:
            yield first


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _names_of_context(tree: ast.AST) -> set[str]:
    """`context`, and the names under which the code knows it or a copy of it: by assignment or as a parameter."""
    nodes = list(ast.walk(tree))
    functions = {node.name: node.args.args for node in nodes if isinstance(node, ast.FunctionDef)}
    named: list[tuple[str, ast.AST]] = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            named += [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            parameters = functions.get(node.func.id, [])
            named += [(parameter.arg, given) for parameter, given in zip(parameters, node.args, strict=False)]
    names = {"context"}
    for _ in range(_NAMES_OF_NAMES):
        names |= {name for name, value in named if _is_context(value, names)}
    return names


def _is_context(node: ast.AST, names: Collection[str]) -> bool:
    while isinstance(node, ast.Call):  # a copy: context.copy(), dict(context)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "copy":
            node = node.func.value
        elif isinstance(node.func, ast.Name) and node.func.id == "dict" and node.args:
            node = node.args[0]
        else:
            return False
    return isinstance(node, ast.Name) and node.id in names


def _member(node: ast.AST, names: Collection[str]) -> tuple[str, str] | None:
    """(key, how) of `context["key"]`, or of a call `context.how("key", …)`."""
    if isinstance(node, ast.Subscript) and _is_context(node.value, names):
        how, key = type(node.ctx).__name__, _text(node.slice)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_context(node.func.value, names):
        how, key = node.func.attr, _text(node.args[0]) if node.args else None
    else:
        return None
    return (key, how) if key in _KEYS else None


def _read(tree: ast.AST, names: Collection[str]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        found = _member(node, names)
        if found is not None and found[1] in ("Load", "get", "pop"):
            yield found[0], getattr(node, "lineno", 0)


def _written(tree: ast.AST, names: Collection[str]) -> Iterator[tuple[str, int]]:
    """Credential keys that the code sets by itself, each with its line."""
    for node in ast.walk(tree):
        line: int = getattr(node, "lineno", 0)
        found = _member(node, names)
        if found is not None and found[1] in ("Store", "setdefault"):
            yield found[0], line
        yield from ((key, line) for key in _updated(node, names) if key in _KEYS)


def _updated(node: ast.AST, names: Collection[str]) -> Iterator[str | None]:
    """The keys of `context.update({"key": …}, key=…)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "update":
        return
    if _is_context(node.func.value, names):
        for argument in node.args:
            yield from (_text(key) for key in (argument.keys if isinstance(argument, ast.Dict) else ()) if key)
        yield from (keyword.arg for keyword in node.keywords)
