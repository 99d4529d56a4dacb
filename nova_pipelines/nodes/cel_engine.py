"""The CEL engine (package `common-expression-language`, Rust), without its command line.

`import cel` also loads typer, rich and prompt_toolkit for a program that NOVA never calls: 0.15 CPU-s in every
run worker. Only its extension module is loaded here.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from typing import Any

_NAME = "cel.cel"  # its own name, so that an `import cel` elsewhere finds it loaded: it cannot be loaded twice


def _load() -> Any:
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package = importlib.util.find_spec("cel")
    for folder in (package.submodule_search_locations or []) if package else []:
        for suffix in EXTENSION_SUFFIXES:
            file = Path(folder) / f"cel{suffix}"
            if file.is_file():
                loader = ExtensionFileLoader(_NAME, str(file))
                spec = importlib.util.spec_from_file_location(_NAME, file, loader=loader)
                if spec is not None:
                    module = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
                    loader.exec_module(module)
                    return module
    raise ImportError("the package common-expression-language is missing: pip install nova-pipelines")


#: `compile(expression) -> Program`; `Program.execute({"context": …})` gives a plain value
_ENGINE = _load()
compile_expression = _ENGINE.compile
