"""The backends, one session each, and documents to read in them."""

from __future__ import annotations

import pytest
from fpdf import FPDF

from nova_pipelines.adapters.sandbox.select import sandbox_for
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY

BACKENDS = ("local", "unsafe-subprocess", "e2b")


@pytest.fixture(params=BACKENDS)
def sandbox(request):
    if request.param == "e2b":
        request.getfixturevalue("wire")
    return sandbox_for(request.param, e2b_api_key=KEY, e2b_template=None)


@pytest.fixture
def session(sandbox):
    with sandbox.session() as session:
        yield session


def draw_pdf(lines: list[str], *, pages: int = 1, password: str | None = None) -> bytes:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    if password:
        pdf.set_encryption(owner_password=password, user_password=password)
    for number in range(1, pages + 1):
        pdf.add_page()
        for line in [*lines, f"page {number}"]:
            pdf.cell(0, 10, line, new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


@pytest.fixture(scope="session")
def invoice_pdf() -> bytes:
    return draw_pdf(["Factura 2026-17", "TOTAL 1.234,56 EUR"])
