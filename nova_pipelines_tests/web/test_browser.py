"""A person's day in a real browser, against a running `nova up`: Dagster's UI, an invoice, an approval."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.cli.conftest import bare as bare
from nova_pipelines_tests.cli.conftest import nova as nova
from nova_pipelines_tests.cli.test_up import Up
from nova_pipelines_tests.cli.test_up import up as up
from nova_pipelines_tests.fixtures.dovecot import MailUser
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.world import add_idom, invoice_pdf
from nova_pipelines_tests.web.site import APPROVAL_WORKFLOW

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]
#: milliseconds; a loaded machine takes its time
LONG = 90_000
SCRIPT = b"/OpenAction<</S/JavaScript/JS(app.alert\\('from the PDF'\\);)>>"


def scripted(pdf: bytes) -> bytes:
    """The PDF with JavaScript that runs when it is opened; where its objects lie, a reader finds out."""
    assert b"/Type /Catalog" in pdf
    return pdf.replace(b"/Type /Catalog", b"/Type /Catalog\n" + SCRIPT, 1)


@pytest.fixture
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where pictures of pages are left: NOVA_SCREENSHOTS, to look at them."""
    folder = Path(os.environ.get("NOVA_SCREENSHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare(nova: Nova, tmp_path: Path, user: MailUser, sink: SmtpSink) -> None:
    """A client with a mailbox; the example workflow, which nobody but a person starts."""
    services = build_services(load_settings())
    add_idom(services, user, sink)
    services.databases.close()
    text = APPROVAL_WORKFLOW.read_text()
    text, count = re.subn(r"^trigger: .*$", 'trigger: {schedule: "0 0 1 1 *"}', text, flags=re.MULTILINE)
    assert count == 1
    text = text.replace("then: escalate ", "to: [luis@idom.example]\n    then: escalate ")
    path = tmp_path / "approval.yaml"
    path.write_text(text)
    assert "live now" in nova("workflow", "load", path).out


def watched(page: Page) -> list[str]:
    """What the browser says went wrong on NOVA's pages: scripts that were blocked, alerts, errors."""
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return trouble


def test_from_the_launchpad_to_an_approved_invoice(
    up: Up,
    browser: Browser,
    tmp_path: Path,
    mail_user: MailUser,
    smtp_sink: SmtpSink,
    shots: Path,
):
    prepare(up.nova, tmp_path, mail_user, smtp_sink)
    deliver(mail_user)
    page = browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page.set_default_timeout(LONG)

    # Dagster's UI on the same port: launched from the launchpad, watched while it works
    page.goto(f"{up.url}/locations/nova/jobs/invoice_approval/playground")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url(re.compile("/runs/"))
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=LONG)
    page.screenshot(path=shots / "dagster.png")
    run_id = page.url.rpartition("/runs/")[2].partition("?")[0]

    # what waits for a person
    trouble = watched(page)
    page.goto(f"{up.url}/pages/?lang=en")
    page.screenshot(path=shots / "home.png", full_page=True)
    page.get_by_role("link", name="Approvals").first.click()
    page.get_by_role("link", name="Suministros Ibéricos S.L.").click()
    expect(page.locator("svg.page")).to_be_visible()
    page.screenshot(path=shots / "approval.png", full_page=True)
    page.locator("dd a[href^='/pages/invoices/']").click()

    # the invoice beside its PDF, which would like to run a script
    expect(page.locator("rect.mark[data-field=total_amount]")).to_be_visible()
    expect(page.get_by_text("TOTAL FACTURA 15.000,59 €")).to_be_visible()
    page.wait_for_function("document.querySelector('svg.page image').getBBox().width > 0")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=shots / "invoice.png", full_page=True)
    answer = page.request.get(page.url + "/document.pdf")
    assert SCRIPT in answer.body()
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    other = browser.new_page()
    opened = watched(other)
    # a browser without a viewer, or one that saves the file, ends the loading
    with contextlib.suppress(PlaywrightError):
        other.goto(page.url + "/document.pdf", wait_until="commit", timeout=10_000)
    other.wait_for_timeout(1_500)
    assert not [line for line in opened if "dialog" in line]
    other.close()

    # decided, and the workflow goes on before one's eyes
    page.goto(f"{up.url}/pages/approvals/1")
    page.get_by_label("Note (optional)").fill("As ordered")
    page.get_by_role("button", name="Approve").click()
    page.wait_for_url(re.compile("/pages/executions/1"))
    expect(page.locator("h1 .s-completed")).to_be_visible(timeout=LONG)
    assert page.locator("[data-live]").count() == 0
    page.screenshot(path=shots / "execution.png", full_page=True)
    assert run_id not in page.content()  # another run went on with it
    expect(page.get_by_text("(page): As ordered")).to_be_visible()
    second = browser.new_page()  # what Dagster's pages say in the console is not ours
    second.goto(up.url + str(page.locator("a[href^='/runs/']").get_attribute("href")))
    expect(second.get_by_text("Success", exact=True).first).to_be_visible(timeout=LONG)
    second.close()
    assert [row["status"] for row in up.nova.json("invoices", "list")] == ["approved"]

    phone(browser, up, shots)
    by_link(browser, smtp_sink, trouble)
    assert trouble == []

    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0, up.said()


def deliver(user: MailUser) -> None:
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["From"], mail["Subject"] = "ana@proveedores.example", "Factura F-2026-001 <script>alert(1)</script>"
    mail.set_content("Adjunto.")
    pdf = scripted(invoice_pdf("15000.59"))
    mail.add_attachment(pdf, maintype="application", subtype="pdf", filename="factura.pdf")
    user.deliver(mail)


def phone(browser: Browser, up: Up, shots: Path) -> None:
    """Everything can be read on a phone without scrolling to the side."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, locale="es-ES", device_scale_factor=2)
    page.set_default_timeout(LONG)
    for name in (
        "",
        "invoices",
        "invoices/1",
        "executions",
        "executions/1",
        "approvals?show=all",
        "approvals/1",
        "mailboxes",
    ):
        page.goto(f"{up.url}/pages/{name}")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        page.screenshot(path=shots / f"phone-{re.sub('[^a-z0-9]', '-', name) or 'home'}.png", full_page=True)
        assert wide <= 0, f"/pages/{name} is {wide} pixels too wide"
    page.close()


def by_link(browser: Browser, sink: SmtpSink, trouble: list[str]) -> None:
    """The link in the mail is for one decision, which is made already; its token leaves the address."""
    text = sink.wait_for(1)[0].message.get_content()
    link = next(word for word in text.split() if "/pages/decide#" in word)
    page = browser.new_page()
    page.set_default_timeout(LONG)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.url} {request.headers.get('referer', '')}"))
    page.goto(link)
    page.wait_for_url(re.compile("/decide/look"))
    expect(page.get_by_role("alert")).to_contain_text("was approved by")
    token = link.partition("#")[2]
    assert asked
    assert not any(token in line.partition("#")[0] or token in line.partition(" ")[2] for line in asked)
    page.close()
