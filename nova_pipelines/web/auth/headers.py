"""Headers of every answer that tell a browser what must not be done with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: pages of NOVA may frame NOVA's own (a PDF beside its fields), nobody else may
_FRAMES = "frame-ancestors 'self'"
#: for pages that bring no policy of their own: nothing but what this server sends, no inline script
PAGE_POLICY = (
    f"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; {_FRAMES}"
)
#: for what is no page: should a browser show it as one, nothing in it works
DATA_POLICY = f"default-src 'none'; {_FRAMES}"
#: GraphiQL, Dagster's page for queries, is one page with inline script and no policy
GRAPHIQL_POLICY = PAGE_POLICY.replace(
    "img-src", "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src"
)
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
#: kept unless the answer has its own
DEFAULTS = {"X-Frame-Options": "SAMEORIGIN", "Cache-Control": "private, no-cache"}
#: a year; subdomains are not NOVA's to decide about
HSTS = "max-age=31536000"


class SecurityHeaders:
    """Pure ASGI, outermost. `https`: browsers come by https although this server does not see it."""

    def __init__(self, app: ASGIApp, *, https: bool = False) -> None:
        self._app, self._https = app, https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(scope, MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, with_headers)

    def _add(self, scope: Scope, headers: MutableHeaders) -> None:
        if "feature-policy" in headers:
            del headers["feature-policy"]  # Dagster's, and the old name of Permissions-Policy: browsers warn of both
        for name, value in ALWAYS.items():
            headers[name] = value
        for name, value in DEFAULTS.items():
            headers.setdefault(name, value)
        headers["Content-Security-Policy"] = _policy(scope, headers)
        if self._https or scope["scheme"] == "https":
            headers["Strict-Transport-Security"] = HSTS


def _policy(scope: Scope, headers: MutableHeaders) -> str:
    """The answer's own policy, with who may frame it; else one by its kind."""
    own = headers.get("content-security-policy")
    if own is not None:
        return own if "frame-ancestors" in own else f"{own.rstrip().rstrip(';')}; {_FRAMES}"
    if not headers.get("content-type", "").startswith("text/html"):
        return DATA_POLICY
    return GRAPHIQL_POLICY if scope["path"] == "/graphql" else PAGE_POLICY
