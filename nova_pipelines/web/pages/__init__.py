"""Pages for people, under `/pages/`: made on the server, in Spanish and English, for any browser."""

from nova_pipelines.web.pages import approvals, executions, home, invoices, links

ROUTERS = (home.router, invoices.router, executions.router, approvals.router, links.router)
