"""The table in which watchers leave their signs of life. Only the table stands here; queries live in `watchers`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from nova_pipelines.database.base import NovaBase


class WatcherRow(NovaBase):
    """One running watcher. A row that grows old is of one that died: an ordered end takes it away."""

    __tablename__ = "watchers"

    #: made anew for each process
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    #: host and process id, for people
    place: Mapped[str] = mapped_column(String(255))
    started_at: Mapped[datetime]
    beat_at: Mapped[datetime]
    #: connections that it should keep, that are open, and that wait after a failure
    mailboxes: Mapped[int]
    connected: Mapped[int]
    failing: Mapped[int]
    #: the last search of any mailbox that succeeded, the last that found something, and how many runs it got started
    searched_at: Mapped[datetime | None]
    news_at: Mapped[datetime | None]
    started_runs: Mapped[int]
