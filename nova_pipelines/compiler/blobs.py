"""Big values of contexts: stored once under their hash, so that not every row of a chain copies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import PermanentError

#: bytes of JSON above which a value is referenced
THRESHOLD = 64 * 1024
KEY = "$blob"


def pack(context: Mapping[str, Any], blobs: dict[str, bytes]) -> dict[str, Any]:
    """`context` with each big value replaced by `{"$blob": sha256, "bytes": n}`; the values go to `blobs`.

    Looks at the values of the context, and into objects one level below. An object of a user that itself holds the key
    `$blob` is stored as a blob too, so that nobody can forge a reference.
    """
    return {key: _pack(value, blobs, 1) for key, value in context.items()}


def _pack(value: Any, blobs: dict[str, bytes], levels: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < 16_000):
        return value
    forged = _mentions_key(value)
    data = canonical_json(value).encode()
    if len(data) <= THRESHOLD and not forged:
        return value
    if isinstance(value, dict) and levels and not forged:
        return {key: _pack(inner, blobs, levels - 1) for key, inner in value.items()}
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {KEY: digest, "bytes": len(data)}


def _mentions_key(value: Any) -> bool:
    if isinstance(value, dict):
        return KEY in value or any(_mentions_key(inner) for inner in value.values())
    return isinstance(value, list) and any(_mentions_key(inner) for inner in value)


def references(context: Any) -> set[str]:
    """The hashes that a packed context refers to."""
    if isinstance(context, dict):
        if set(context) == {KEY, "bytes"}:
            return {context[KEY]}
        return {digest for value in context.values() for digest in references(value)}
    return set()


def unpack(context: Any, fetch: Callable[[str], bytes | None]) -> Any:
    """The context as it was. Raises PermanentError for a blob that is missing or was changed."""
    if not isinstance(context, dict):
        return context
    if set(context) == {KEY, "bytes"}:
        data = fetch(context[KEY])
        if data is None or hashlib.sha256(data).hexdigest() != context[KEY]:
            raise PermanentError(
                f"the stored value {context[KEY][:12]}… is missing or was changed",
                remedy="restore nova-db from a backup",
            )
        return json.loads(data)
    return {key: unpack(value, fetch) for key, value in context.items()}
