"""The child processes of `nova up`: started, watched, their logs kept, ended together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nova_pipelines.cli.keeper import GRACE_SECONDS
from nova_pipelines.cli.output import plain
from nova_pipelines.database.failures import folder_failure
from nova_pipelines.database.session import private_folder
from nova_pipelines.domain.errors import NovaError

#: a log above this size is put aside when its program starts, the last few are kept
LOG_BYTES, LOGS_KEPT = 5 * 1024 * 1024, 3
#: the keeper takes GRACE_SECONDS twice at most
STOP_SECONDS = 2 * GRACE_SECONDS + 2.0
TAIL_LINES = 15


class ProgramDied(NovaError):
    """One of the programs ended by itself."""


@dataclass
class Family:
    """The programs of one `nova up`. Each is the leader of a process group, so that Ctrl-C reaches only us."""

    logs: Path
    environment: dict[str, str]
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, program: str, *arguments: str) -> None:
        """Starts `nova serve PROGRAM`; its output goes to the log of its name."""
        parent = ["--parent", str(os.getpid())]
        command = [sys.executable, "-m", "nova_pipelines.cli.main", "serve", program, *arguments, *parent]
        with open_log(self.logs, program) as log:
            self.programs[program] = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ProgramDied with the end of its log when a program is gone."""
        for name, process in self.programs.items():
            code = process.poll()
            if code is not None:
                path = log_path(self.logs, name)
                lines = "\n".join(f"  {line}" for line in tail(path))
                raise ProgramDied(
                    f"{name} ended by itself with exit code {code}; its last lines were:\n{lines}",
                    remedy=f"the whole log is {path}",
                )

    def stop(self) -> list[str]:
        """Ends all programs with everything they started; returns those that had to be killed."""
        for process in self.programs.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        killed: list[str] = []
        for name, process in self.programs.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                killed.append(name)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return killed


def log_path(logs: Path, program: str) -> Path:
    return logs / f"{program}.log"


def open_log(logs: Path, program: str) -> IO[bytes]:
    """The log to append to; a big one is put aside first. Raises ConfigurationError."""
    path = log_path(logs, program)
    try:
        private_folder(logs)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            for number in range(LOGS_KEPT - 1, 0, -1):
                older = path.with_suffix(f".log.{number}")
                if older.exists():
                    older.replace(path.with_suffix(f".log.{number + 1}"))
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")
    except OSError as error:
        raise folder_failure(path, error) from error


def tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, as a person reads them: Dagster writes JSON, a crash writes text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ["(no log)"]
    readable: list[str] = []
    for line in text.splitlines():
        readable += _readable(line)
    return [plain(line) for line in readable if line.strip()][-lines:]


def _readable(line: str) -> list[str]:
    try:
        entry = json.loads(line)
    except ValueError:
        return [line]
    if not isinstance(entry, dict) or "event" not in entry:
        return [line]
    return [f"{entry.get('level', '')}: {entry['event']}", *str(entry.get("exception") or "").splitlines()]
