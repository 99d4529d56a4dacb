"""Big values of contexts: stored once under their hash, so that not every row of a chain copies them.

A reference may stand only where `pack` puts one: as a value of the context, or as a value of such a value.
Wherever else its key occurs in a context it is an ordinary key, so that nobody can forge a reference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.domain.plain import as_object

#: bytes of JSON above which a value is referenced
THRESHOLD = 64 * 1024
KEY = "$blob"
#: how deep references may stand: values of the context, and values of its objects
_LEVELS = 2
#: a character takes at most 6 bytes of JSON, as \\u0000 does
_SURELY_SHORT = THRESHOLD // 6 - 2


def pack(context: Mapping[str, Any], blobs: dict[str, bytes]) -> dict[str, Any]:
    """`context` with each big value replaced by `{"$blob": sha256, "bytes": n}`; the values go to `blobs`.

    Of an object that is too big, its big values are taken out; all of it if it still is too big then. A value
    in which the key `$blob` occurs at all is stored as a blob: what looks like a reference is never a user's.
    Raises ValueError or TypeError for what is no clean JSON.
    """
    return {key: _packed(value, blobs, _LEVELS) for key, value in context.items()}


def _packed(value: Any, blobs: dict[str, bytes], levels: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str) and len(value) <= _SURELY_SHORT:
        return value
    data = canonical_json(value).encode()
    forged = KEY.encode() in data and not isinstance(value, str)
    if len(data) <= THRESHOLD and not forged:
        return value
    members = as_object(value)
    if members is not None and levels > 1 and not forged:
        found: dict[str, bytes] = {}
        inner = {key: _packed(member, found, levels - 1) for key, member in members.items()}
        if len(canonical_json(inner).encode()) <= THRESHOLD:
            blobs |= found
            return inner
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {KEY: digest, "bytes": len(data)}


def _digest(value: Any) -> str | None:
    """The hash that a value refers to, or None if it is no reference."""
    members = as_object(value)
    return str(members[KEY]) if members is not None and members.keys() == {KEY, "bytes"} else None


def references(context: Any, levels: int = _LEVELS) -> set[str]:
    """The hashes that a packed context refers to."""
    found: set[str] = set()
    for value in (as_object(context) or {}).values():
        digest = _digest(value)
        if digest is not None:
            found.add(digest)
        elif levels > 1:
            found |= references(value, levels - 1)
    return found


def unpack(context: Any, fetch: Callable[[str], bytes | None], levels: int = _LEVELS) -> Any:
    """A packed context as it was; what is no object comes back as it is.

    Raises PermanentError for a blob that is missing or was changed.
    """
    members = as_object(context)
    if members is None:
        return context
    whole: dict[str, Any] = {}
    for key, value in members.items():
        digest = _digest(value)
        if digest is not None:
            whole[key] = _fetched(digest, fetch)
        else:
            whole[key] = unpack(value, fetch, levels - 1) if levels > 1 else value
    return whole


def _fetched(digest: str, fetch: Callable[[str], bytes | None]) -> Any:
    data = fetch(digest)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise PermanentError(
            f"the stored value {digest[:12]}… is missing or was changed",
            remedy="restore nova-db from a backup",
        )
    return json.loads(data)
