"""The E2B template from code: Python, what NOVA and old workflows import in a sandbox, and the guest runner. A
sandbox of it starts in about a third of the time, and nothing has to be sent or installed in it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nova_pipelines.adapters.sandbox.e2b_errors import errors_mapped
from nova_pipelines.adapters.sandbox.e2b_files import TEMPLATE_GUEST, guest_zip

if TYPE_CHECKING:
    from e2b.template.main import TemplateBuilder

NAME = "nova-pipelines"
PYTHON = "3.11"
#: of the user that E2B's images work as
HOME = PurePosixPath("/", "home", "user")
#: the versions of constraints.txt, which an installed NOVA does not carry; a test compares them
PACKAGES = {
    "jinja2": "3.1.6",
    "pandas": "3.1.1",
    "pdfplumber": "0.11.10",
    "psycopg2-binary": "2.9.13",
    "pymupdf": "1.28.2",
    "pypdfium2": "5.15.2",
    "requests": "2.34.2",
}


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build: `template_id` (or the name) goes into E2B_TEMPLATE_ID."""

    template_id: str
    build_id: str
    name: str


def template_in(folder: Path) -> TemplateBuilder:
    """The template, with its files written into `folder`, from where the SDK uploads them."""
    from e2b import Template

    (folder / "guest.zip").write_bytes(guest_zip())
    return (
        Template(file_context_path=folder)
        .from_python_image(PYTHON)
        .pip_install([f"{name}=={version}" for name, version in sorted(PACKAGES.items())])
        .copy("guest.zip", f"{HOME}/{TEMPLATE_GUEST}", user="user", mode=0o444)
    )


def dockerfile() -> str:
    """The template as a Dockerfile, to be read before it is built."""
    from e2b import Template

    with tempfile.TemporaryDirectory(prefix="nova-template-") as folder:
        return Template.to_dockerfile(template_in(Path(folder)))


def build(api_key: str, name: str, *, vcpus: int, memory_mib: int, tell: Callable[[str], None]) -> Built:
    """Builds it in the account of `api_key`; takes minutes. `tell` gets each line of the build's log.

    Raises PermanentError with the reason when the build fails, CredentialError, CloudBusy, or CloudUnclear when an
    answer was lost: the build may go on (it can be asked for again).
    """
    from e2b import Template

    with tempfile.TemporaryDirectory(prefix="nova-template-") as folder:
        template = template_in(Path(folder))
        with errors_mapped("building the template", effects=True):
            info = Template.build(
                template,
                name,
                cpu_count=vcpus,
                memory_mb=memory_mib,
                on_build_logs=lambda entry: tell(entry.message),
                api_key=api_key,
            )
    return Built(info.template_id, info.build_id, info.name)
