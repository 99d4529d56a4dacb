"""Whether a mail really comes from the domain in its From, by what the mailbox's provider found (RFC 8601).

Nothing is checked here: SPF and DKIM need the moment of delivery. Only the provider's own words count; a sender
can write any Authentication-Results header, so where it stands and whose it is decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from nova_pipelines.adapters.mail_headers import MAX_HEADER, address_values, clean_line

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*+)"|([^\s"();=]+)|([();=])|(\s+)|"')
_MAX_TOKENS = 5_000


@dataclass(frozen=True, slots=True)
class Provider:
    """Whose results count: `authserv_id` as it stands in the header, and how many Received lines of the provider's
    own stand above them (`hops`, usually 0)."""

    authserv_id: str
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the domain in From is who sent the mail, and why that is said."""

    verified: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Result:
    method: str
    result: str
    properties: dict[str, str]


def verify_sender(headers: Message, provider: Provider) -> Verdict:
    """By RFC 7489: DMARC passed, or else SPF or DKIM passed for the domain in From (or one above or below it).

    Where DMARC failed nothing else helps. A mail with several senders is not verified: it is not clear which one.
    """
    senders = [value for name, value in headers.raw_items() if name.lower() == "from"]
    found = address_values(headers, "From")
    if len(senders) != 1 or len(found) != 1:
        return Verdict(False, "the mail has not exactly one sender")
    domain = found[0].address.rpartition("@")[2].lower().rstrip(".")
    values, below = _trusted(headers, provider)
    results = [result for value in values for result in _results(value, provider.authserv_id)]
    if not results:
        where = f" above its {provider.hops + 1}. Received line; {below} stand below it" if below else ""
        return Verdict(False, f"the mail has no Authentication-Results of {provider.authserv_id}{where}")
    dmarc = [result for result in results if result.method == "dmarc"]
    if dmarc:
        passed = all(result.result == "pass" and _names(result, domain) for result in dmarc)
        said = ", ".join(sorted({result.result for result in dmarc}))
        return Verdict(passed, f"dmarc={said} for {domain}")
    for result in results:
        if result.result == "pass" and _aligned(_domain_of(result), domain):
            return Verdict(True, f"{result.method}=pass for {_domain_of(result)}")
    said = ", ".join(f"{result.method}={result.result}" for result in results[:10])
    return Verdict(False, clean_line(f"neither SPF nor DKIM passed for {domain} ({said})", 300))


def _trusted(headers: Message, provider: Provider) -> tuple[list[str], int]:
    """The provider's headers of which none can be the sender's, and how many stand too low to count.

    Every server writes above what it was given: what stands above the provider's own Received lines is its own.
    """
    received, values, below = 0, [], 0
    for name, value in headers.raw_items():
        if name.lower() == "received":
            received += 1
        elif name.lower() == "authentication-results" and _is_from(str(value), provider.authserv_id):
            if received <= provider.hops:
                values.append(str(value))
            else:
                below += 1
    return values, below


def _is_from(value: str, authserv_id: str) -> bool:
    first = next(_parts(value), [])
    return bool(first) and first[0].lower() == authserv_id.strip().lower()


def _results(value: str, authserv_id: str) -> Iterator[_Result]:
    """`method=result ptype.property=value …` of one header; what does not read so is left out."""
    parts = _parts(value)
    next(parts, None)
    for part in parts:
        if len(part) < 3 or part[1] != "=":
            continue
        properties = {
            part[place - 1].lower(): part[place + 1].lower() for place in range(4, len(part) - 1) if part[place] == "="
        }
        yield _Result(part[0].lower().partition("/")[0], part[2].lower(), properties)


def _parts(value: str) -> Iterator[list[str]]:
    """The words between the semicolons, without comments; quoted ones without their quotes."""
    words: list[str] = []
    depth = 0
    for count, token in enumerate(_TOKEN.finditer(value[:MAX_HEADER])):
        quoted, word, sign, _ = token.groups()
        if count > _MAX_TOKENS:
            break
        if sign in ("(", ")"):
            depth = max(0, depth + (1 if sign == "(" else -1))
        elif depth:
            continue
        elif sign == ";":
            yield words
            words = []
        elif quoted is not None:
            words.append(re.sub(r"\\(.)", r"\1", quoted))
        elif word or sign:
            words.append(word or sign)
    if not depth:  # what an open comment swallowed cannot be trusted
        yield words


def _names(result: _Result, domain: str) -> bool:
    """A DMARC result that names a domain must name this one."""
    named = result.properties.get("header.from")
    return named is None or named.rpartition("@")[2].rstrip(".") == domain


def _domain_of(result: _Result) -> str:
    names = {"dkim": ("header.d", "header.i"), "spf": ("smtp.mailfrom", "smtp.mail")}.get(result.method, ())
    found = next((result.properties[name] for name in names if name in result.properties), "")
    return found.rpartition("@")[2].rstrip(".")


def _aligned(authenticated: str, domain: str) -> bool:
    """The same domain, or one above or below the other: RFC 7489's relaxed alignment without a list of public
    suffixes, which nobody can sign for."""
    if authenticated.count(".") == 0:
        return False
    return authenticated == domain or domain.endswith(f".{authenticated}") or authenticated.endswith(f".{domain}")
