"""How the guest is started: `zygote` serves jobs over a socket, `once` does a single job from file to file."""

# plain os calls: a fork should touch as little memory as it can
# ruff: noqa: PTH100, PTH105, PTH108, PTH118, PTH119, PTH123

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import shutil
import signal
import site
import socket
import struct
import sys

from .gauge import Gauge
from .job import Job, tasks
from .keeper import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    drop_capabilities,
    kill_all,
    prctl,
    spawn,
    watch,
)
from .pdf import warm_up

CONTROL_BYTES = 64 * 1024
CHUNK = 64 * 1024
ALL_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def main(arguments: list[str]) -> None:
    """`zygote OPTIONS` (JSON) or `once JOB REPORT BASE` (paths)."""
    mode, *rest = arguments
    if mode == "zygote":
        Zygote(json.loads(rest[0])).serve()
    else:
        once(*rest)


def private_state() -> tuple:
    """What a job of the same uid could change from outside (prlimit, nice, affinity)."""
    limits = tuple(resource.getrlimit(kind) for kind in ALL_LIMITS)
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return limits, os.getpriority(os.PRIO_PROCESS, 0), affinity


class Zygote:
    """Holds the imported modules and nothing else: a job's data goes past it, straight into the fork.

    Options: `control` (fd of a stream socket), `base` (where work folders are made), `sweep` (folders that are
    emptied after each job), `paths` (for sys.path), `preload` (modules), `drop` (uid or null), `own_base`
    (remove `base` at the end).
    """

    def __init__(self, options: dict) -> None:
        self.control = socket.socket(fileno=options["control"])
        self.base = options["base"]
        self.sweep = options["sweep"]
        self.own_base = options["own_base"]
        self.jobs = 0
        if not self.own_base and os.getpid() != 1:
            raise SystemExit("not alone in a PID namespace: kills and sweeps here would hit the host")
        sys.path.extend(options["paths"])
        self.lock_in(options["drop"])
        self.preload(options["preload"])
        tasks()
        site.setquit()  # exit() and quit() are missing after `python -S`
        self.kept = {entry.path for place in self.sweep for entry in os.scandir(place)}
        self.state = private_state()

    def lock_in(self, uid: int | None) -> None:
        """Gives up root for good; closes this process to its children, which have the same uid."""
        if os.getpid() == 1:
            with open("/proc/self/oom_score_adj", "w") as stream:
                stream.write("500")  # when memory runs out, node code goes before anything else of the machine
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            drop_capabilities()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        if os.getpid() == 1:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of uid clears bubblewrap's
        # as PID 1 of its namespace it gets no signal that it does not handle
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.umask(0o077)

    def preload(self, names: list[str]) -> None:
        """Imports here once what every fork then has. Unknown modules are the job's own matter."""
        for name in names:
            if name not in sys.modules:
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError:
                    continue
                if name == "pypdfium2":
                    warm_up()
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Ready → job → report → clean → ready, until the host hangs up."""
        while True:
            self.send({"ready": True})
            message, fds = self.receive()
            self.preload(message["preload"])
            self.jobs += 1
            gauge = Gauge(message, self.sweep) if os.getpid() == 1 else None
            pid = spawn(fds, os.path.join(self.base, f"job-{self.jobs}"))
            self.send(watch(pid, message["wall_seconds"], {self.control.fileno(): self.hung_up}, gauge))
            self.clean()
            if private_state() != self.state:
                self.leave()  # a job has tampered with this process: the host starts a fresh one

    def send(self, message: dict) -> None:
        data = json.dumps(message).encode()
        try:
            self.control.sendall(struct.pack(">I", len(data)) + data)
        except OSError:
            self.leave()

    def receive(self) -> tuple[dict, list[int]]:
        data, fds = b"", []
        while len(data) < 4 or len(data) < 4 + struct.unpack_from(">I", data)[0]:
            try:
                more, new, _, _ = socket.recv_fds(self.control, CONTROL_BYTES, 4)
            except ConnectionResetError:  # the host hung up with a `ready` unread
                more, new = b"", []
            if not more:
                self.leave()
            data += more
            fds += new
        return json.loads(data[4:]), fds

    def hung_up(self) -> bool:
        """The host says nothing during a job; if it can be read, it is gone."""
        self.leave()
        return False

    def clean(self) -> None:
        """Removes all that a job left. What cannot be removed raises, and the host starts afresh."""
        for place in self.sweep:
            for entry in os.scandir(place):
                if entry.path in self.kept:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)

    def leave(self) -> None:
        if os.getpid() != 1:  # as PID 1 the kernel kills the rest
            kill_all(0, reap=True)
        if self.own_base:
            shutil.rmtree(self.base, ignore_errors=True)
        os._exit(0)


class Capped:
    """A pipe's reading end that keeps `cap` bytes and only counts the rest as truncated."""

    def __init__(self, fd: int, cap: int) -> None:
        self.fd = fd
        self.cap = cap
        self.data = bytearray()
        self.truncated = False
        os.set_blocking(fd, False)

    def read(self) -> bool:
        """Takes one chunk, if one is there; False at the end of the stream."""
        try:
            chunk = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return True
        self.keep(chunk)
        return bool(chunk)

    def keep(self, chunk: bytes) -> None:
        room = self.cap - len(self.data)
        self.data += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room

    def drain(self) -> bytes:
        """All of it, once the writers are dead."""
        try:
            while chunk := os.read(self.fd, CHUNK):
                self.keep(chunk)
        except BlockingIOError:  # somebody outside still holds the writing end: what came is all
            return bytes(self.data)
        return bytes(self.data)


def once(job_path: str, report_path: str, base: str) -> None:
    """Does one job and writes its report: 4 bytes length, JSON header, then result, stdout and stderr."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    tasks()  # while the way to this code, which may be a relative one, still holds
    job_fd = os.open(job_path, os.O_RDONLY)
    header = Job(job_fd).header
    # a job must not find the data of another one
    for entry in os.scandir(base):
        if entry.name.endswith((".job", ".report")) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
    sinks, readers = [], []
    for cap in (header["result_bytes"] + CHUNK, header["output_bytes"], header["output_bytes"]):
        reading, writing = os.pipe()
        readers.append(Capped(reading, cap))
        sinks.append(writing)
    folder = os.path.join(os.path.abspath(base), "work-" + os.path.basename(job_path))
    pid = spawn([job_fd, *sinks], folder)
    report = watch(pid, header["wall_seconds"], {reader.fd: reader.read for reader in readers})
    parts = [reader.drain() for reader in readers]
    report["truncated"] = [reader.truncated for reader in readers]
    report["sizes"] = [len(part) for part in parts]
    shutil.rmtree(folder, ignore_errors=True)
    data = json.dumps(report).encode()
    with open(report_path + ".part", "wb") as stream:
        stream.write(b"".join([struct.pack(">I", len(data)), data, *parts]))
    os.replace(report_path + ".part", report_path)
