"""What makes two mails the same mail: all that the author wrote, and nothing that was added on the way.

A Message-ID alone is no identity: it may be missing, and programs repeat it for different mails. Received,
Delivered-To, DKIM or spam headers are of the way, which differs from folder to folder and from alias to alias.
"""

from __future__ import annotations

import hashlib
from typing import IO

from nova_pipelines.adapters.mail_content import PIECE_BYTES
from nova_pipelines.adapters.mail_headers import raw_value
from nova_pipelines.adapters.mime_sections import sections

#: RFC 5322, 3.6: originator, destination, identification and informational fields
_WRITTEN = (
    *("From", "Sender", "Reply-To", "To", "Cc", "Date", "Message-ID", "In-Reply-To", "References", "Subject"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition"),
)


def fingerprint(file: IO[bytes], size: int) -> str:
    """SHA-256 in hex over those headers and the content's bytes. Raises PermanentError as `sections` does."""
    top = next(sections(file, size))
    digest = hashlib.sha256()
    for name in _WRITTEN:
        value = " ".join((raw_value(top.headers, name) or "").split())
        digest.update(f"{name}:{value}\n".encode("utf-8", "replace"))
    position = top.start
    while position < size:
        file.seek(position)
        piece = file.read(min(PIECE_BYTES, size - position))
        if not piece:
            break
        digest.update(piece)
        position += len(piece)
    return digest.hexdigest()
