"""The code of the battery's attacks, as it runs in the sandbox; `escapes` runs it and judges."""

from __future__ import annotations

PRELUDE = """
import ctypes, errno, os, resource, signal, socket, stat, struct, subprocess, sys, threading, time
ask = context["ask"]
context = {"held": None}
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    ctypes.set_errno(0)
    number = ask["calls"][name] if isinstance(name, str) else name
    return libc.syscall(number, *arguments), ctypes.get_errno()

def stopped(name, *arguments):
    return call(name, *arguments)[0] == -1

def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return True
    return False

def write(path, data=b"x"):
    with open(path, "wb") as stream:
        stream.write(data)

def held(*parts):
    context["held"] = all(parts)
    context["parts"] = list(parts)

def answer(data):
    view = memoryview(data)
    while view:
        view = view[os.write(3, view):]
    os._exit(0)

def forks(count, action):
    for _ in range(count):
        if not os.fork():
            action()
            os._exit(0)

def flags():
    return dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
"""

#: name → code that sets `context["held"]`
PROBES = {
    "files of the host": "held(not any(map(os.path.lexists, ask['files'])))",
    "environment of the host": "held(ask['secret'] not in str(os.environ), set(os.environ) <= {'PATH', 'HOME', 'LANG', "
    "'PYTHONDONTWRITEBYTECODE', 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'PWD', 'TMPDIR', "
    "'LC_CTYPE'})",
    "other processes": """
        seen = [name for name in os.listdir('/proc') if name.isdigit()]
        lines = [open(f'/proc/{pid}/cmdline').read() for pid in seen]
        held(len(seen) <= 2, not any(ask['secret'] in line for line in lines))""",
    "environment of other processes": """
        held(refused(open, '/proc/1/environ'), refused(open, f"/proc/{ask['victim']}/environ"))""",
    "loopback TCP": "held(refused(socket.create_connection, ('127.0.0.1', ask['tcp']), 2))",
    "UDP": """
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        refused(out.sendto, b'out', ('127.0.0.1', ask['udp']))
        held(True)  # the host looks whether something came""",
    "internet": "held(refused(socket.create_connection, ('198.51.100.1', 443), 2))",
    "abstract socket": "held(refused(socket.socket(socket.AF_UNIX).connect, chr(0) + ask['secret']))",
    "path socket": "held(not os.path.lexists(ask['path']), refused(socket.socket(1).connect, ask['path']))",
    "DNS": """
        query = bytes.fromhex('000101000001000000000000076578616d706c6503636f6d0000010001')
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held(refused(socket.getaddrinfo, 'example.com', 80), refused(out.sendto, query, ('8.8.8.8', 53)))""",
    "raw sockets": """
        held(refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1), refused(socket.socket, 17, 3, 0x300))""",
    "other socket families": """
        # vsock goes to the host of a virtual machine; AF_ALG is the kernel's cryptography
        held(refused(socket.socket, 40, 1), refused(socket.socket, 38, 5), stopped('socketpair', 30, 1, 0, 0))""",
    "namespaces by unshare": """
        flags = (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000, 0x2000000)
        held(*(stopped('unshare', flag) for flag in flags))""",
    "namespaces by setns": """
        held(*(stopped('setns', os.open('/proc/self/ns/' + name, 0), 0) for name in ('user', 'net', 'mnt', 'pid')),
             refused(os.open, '/proc/1/ns/net', 0))""",
    "namespaces by clone": """
        result = [call('clone', flag | signal.SIGCHLD, 0, 0, 0, 0)[0] for flag in (0x10000000, 0x50000000)]
        if 0 in result:
            os._exit(0)
        held(*(number == -1 for number in result))""",
    "namespaces by clone3": """
        arguments = ctypes.create_string_buffer(struct.pack('<8Q', 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
        number = call('clone3', arguments, 64)[0]
        if number == 0:
            os._exit(0)
        held(number == -1)""",
    "to be root": """
        held(refused(os.setuid, 0), refused(os.setgid, 0), refused(os.setgroups, [0]), os.geteuid() != 0)""",
    "setuid binaries": """
        suid = [e.path for e in os.scandir('/usr/bin') if e.stat(follow_symlinks=False).st_mode & stat.S_ISUID]
        write('mine', open('/usr/bin/env', 'rb').read())
        os.chmod('mine', 0o6755)
        held(*(os.statvfs(path).f_flag & os.ST_NOSUID for path in [*suid, 'mine', '/usr/bin']),
             flags()['NoNewPrivs'].strip() == '1')""",
    "capabilities": """
        header, wanted = struct.pack('<Ii', 0x20080522, 0), struct.pack('<6I', *[0xFFFFFFFF] * 6)
        names = ('CapEff', 'CapPrm', 'CapAmb', 'CapInh')
        held(stopped('capset', header, wanted), *(int(flags()[name], 16) == 0 for name in names))""",
    "device nodes": """
        held(*(refused(os.mknod, 'node', kind | 0o600, os.makedev(*number))
               for kind, number in ((stat.S_IFBLK, (8, 0)), (stat.S_IFBLK, (254, 0)), (stat.S_IFCHR, (1, 1)))))""",
    "devices of the host": """
        allowed = {'null', 'zero', 'full', 'random', 'urandom', 'tty', 'console', 'ptmx', 'pts', 'shm', 'fd', 'core',
                   'stdin', 'stdout', 'stderr'}
        held(set(os.listdir('/dev')) <= allowed, refused(open, '/dev/tty'))""",
    "terminal": "held(call('ioctl', 0, 0x5412, b'x')[1] == errno.EPERM, not os.isatty(0), os.read(0, 1) == b'')",
    "ptrace": "held(stopped('ptrace', 0, 0, 0, 0), stopped('ptrace', 16, 1, 0, 0), stopped('ptrace', 0x4206, 1, 0, 0))",
    "memory of other processes": """
        buffer = ctypes.create_string_buffer(8)
        vector = struct.pack('<QQ', ctypes.addressof(buffer), 8)
        held(stopped('process_vm_readv', os.getpid(), vector, 1, vector, 1, 0), refused(open, '/proc/1/mem', 'rb'),
             stopped('pidfd_getfd', os.pidfd_open(os.getpid()), 0, 0), stopped('kcmp', 1, os.getpid(), 0, 0, 0))""",
    "kill": """
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGXCPU):
            os.kill(1, number)
        held(refused(os.kill, ask['victim'], 9), os.path.exists('/proc/1'))""",
    "limits of the zygote": """
        held(refused(resource.prlimit, 1, resource.RLIMIT_NOFILE, (0, 0)), refused(os.sched_setaffinity, 1, {0}),
             refused(os.setpriority, os.PRIO_PROCESS, 1, 19), refused(os.setpriority, os.PRIO_USER, os.getuid(), 19),
             refused(os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0)))""",
    "descriptors of the host": """
        fds = [int(name) for name in os.listdir('/proc/self/fd')]
        # 0 to 3 are its own; the listing has one more, which is closed by now
        held({0, 1, 2, 3} <= set(fds), *(refused(os.fstat, fd) for fd in fds if fd > 3))""",
    "/proc/1": """
        names = ('fd', 'root', 'cwd', 'map_files')
        held(*(refused(os.listdir, f'/proc/1/{name}') for name in names), refused(os.readlink, '/proc/1/exe'))""",
    "/proc/sys": """
        names = ('kernel/core_pattern', 'kernel/hostname', 'vm/drop_caches', 'kernel/modprobe')
        held(*(refused(write, '/proc/sys/' + name, b'1') for name in names), refused(write, '/proc/sysrq-trigger'),
             refused(write, '/proc/1/oom_score_adj', b'1000'))""",
    "/sys": "held(not os.path.lexists('/sys'), not os.path.lexists('/run'), not os.path.lexists('/proc/1/root/sys'))",
    "system folders": """
        held(*(refused(write, folder + '/probe') for folder in ('/', '/usr', '/usr/bin', '/usr/lib', '/dev', '/nova',
               '/nova/guest', '/etc', '/proc', os.path.dirname(os.__file__))),
             refused(os.chmod, '/usr/bin/env', 0o777), refused(os.rename, '/nova/guest/main.py', '/tmp/main.py'))""",
    "mount": """
        held(stopped('mount', b'none', b'/tmp', b'tmpfs', 0, 0), stopped('mount', b'/', b'/tmp', 0, 4096, 0),
             stopped('mount', b'proc', b'/tmp', b'proc', 0, 0), stopped('umount2', b'/tmp', 2),
             stopped('mount', b'none', b'/usr/bin', 0, 4096 | 32, 0))""",
    "mount by descriptors": """
        held(stopped('fsopen', b'tmpfs', 0), stopped('open_tree', -100, b'/', 1),
             stopped('move_mount', 0, b'', 0, b'', 4),
             stopped('fsmount', 0, 0, 0), stopped('mount_setattr', -100, b'/', 0, 0, 0),
             stopped('fspick', -100, b'/', 0))""",
    "chroot and pivot_root": "held(refused(os.chroot, '/tmp'), stopped('pivot_root', b'/tmp', b'/tmp'))",
    "file handles": "held(stopped('open_by_handle_at', 0, bytes(64), 0))",
    "keyrings": """
        held(stopped('keyctl', 0, -3, 1), stopped('add_key', b'user', b'nova', b'x', 1, -3),
             stopped('request_key', b'user', b'nova', 0, -3))""",
    "bpf": "held(stopped('bpf', 0, struct.pack('<5I', 2, 4, 4, 1, 0) + bytes(100), 120))",
    "io_uring": "held(stopped('io_uring_setup', 4, ctypes.create_string_buffer(120)))",
    "perf_event": """
        event = struct.pack('<IIQQQQQ', 1, 112, 0, 0, 0, 0, 0x63) + bytes(64)  # own CPU clock, user space only
        held(stopped('perf_event_open', event, 0, -1, -1, 0))""",
    "userfaultfd": "held(stopped('userfaultfd', 1))",
    "foreign system calls": """
        # those of x32 and those younger than the filter must look absent
        numbers = [0x40000000 | ask['calls']['getpid'], *range(457, 480)]
        held(*(call(number, 0, 0, 0, 0) == (-1, errno.ENOSYS) for number in numbers))""",
    "machine and clock": """
        names = ('reboot', 'kexec_load', 'init_module', 'finit_module', 'delete_module', 'swapon', 'settimeofday',
                 'clock_settime', 'sethostname', 'setdomainname', 'syslog', 'acct', 'quotactl', 'vhangup')
        held(*(call(name, 0, 0, 0, 0) == (-1, errno.EPERM) for name in names))""",
    "memory outside of processes": """
        held(stopped('memfd_create', b'x', 0), stopped('shmget', 0, 1 << 30, 0o1600),
             stopped('mq_open', b'x', 0o102, 0o600, 0))""",
    "messages to the next job": "held(stopped('msgget', 1, 0o1600), stopped('semget', 1, 1, 0o1600))",
    "folder for temporary files": """
        space = os.statvfs('/tmp')
        held(space.f_blocks * space.f_frsize <= 256 * 1024 * 1024)
        write('/tmp/left', b'x' * 1000)
        os.makedirs('/tmp/a/b')
        os.chmod('/tmp/a', 0)""",
    "fork bomb, counted": """
        count = 0
        try:
            while count < 300:
                if not os.fork():
                    signal.pause()
                count += 1
        except OSError:
            pass
        held(count < 100)""",
    "threads without end": """
        count = 0
        try:
            while count < 300:
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                count += 1
        except RuntimeError:
            pass
        held(count < 100)""",
    "daemonised child": """
        if not os.fork():
            os.setsid()
            if not os.fork():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                time.sleep(1000)
            os._exit(0)
        held(True)  # the next job counts the processes""",
    "links and FIFOs left behind": """
        os.symlink('/', '/tmp/link'), os.symlink('/proc/1', 'link'), os.mkfifo('/tmp/fifo'), os.mkfifo('/dev/shm/fifo')
        socket.socket(socket.AF_UNIX).bind('/tmp/socket')
        held(True)  # the next job looks what is left""",
    "a gigabyte of output": """
        chunk = b'x' * (1 << 20)
        for _ in range(1024):
            os.write(1, chunk)
        held(True)  # the host looks how much it has""",
}

#: name, what may become of the job, its limits, code
BOMBS = [
    (
        "shared memory folder",  # the folder is full, or the gauge has seen it first
        ["ok", "resource"],
        {},
        """
        def fill():
            for number in range(32):
                write(f'/dev/shm/{number}', bytes(1024 * 1024))
        held(refused(fill))""",
    ),
    (
        "fork bomb",
        ["timeout", "resource", "crashed", "code_error"],
        {"wall_seconds": 1.0},
        """
        while True:
            try:
                os.fork()
            except OSError:
                pass""",
    ),
    (
        "memory bomb",
        ["resource"],
        {},
        """
        blocks = []
        while True:
            blocks.append(b'x' * (16 << 20))""",
    ),
    (
        "memory bomb in many processes",
        ["resource"],
        {},
        """
        def bomb():
            block = b'x' * (40 << 20)
            time.sleep(30)
        forks(24, bomb)
        time.sleep(30)""",
    ),
    (
        "memory bomb in many hidden processes",
        ["resource"],
        {},
        """
        def bomb():
            libc.prctl(4, 0, 0, 0, 0)  # not dumpable: the kernel tells nobody how its memory is shared
            block = b'x' * (40 << 20)
            time.sleep(30)
        forks(24, bomb)
        time.sleep(30)""",
    ),
    ("disk by one file", ["resource"], {}, "write('big', bytes(64 << 20))"),
    (
        "disk by many files",
        ["resource"],
        {},
        """
        for number in range(400):
            write(f'/tmp/{number}', bytes(1 << 20))
        time.sleep(30)""",
    ),
    (
        "disk by deleted files",
        ["resource"],
        {},
        """
        files = []
        for number in range(200):
            files.append(open('/tmp/x', 'wb', 0))
            os.unlink('/tmp/x')
            files[-1].write(bytes(1 << 20))
        time.sleep(30)""",
    ),
    (
        "inodes",
        ["resource"],
        {},
        """
        for folder in range(10_000):
            os.mkdir(f'/tmp/{folder}')
            for number in range(100):
                os.symlink('x', f'/tmp/{folder}/{number}')""",
    ),
    ("endless loop", ["timeout"], {"wall_seconds": 0.5}, "while True: pass"),
    ("endless sleep", ["timeout"], {"wall_seconds": 0.5}, "time.sleep(1000)"),
    (
        "CPU in many processes",
        ["timeout"],
        {"cpu_seconds": 1.0},
        """
        def spin():
            while True: pass
        forks(8, spin)
        time.sleep(30)""",
    ),
    (
        "signals ignored",
        ["timeout"],
        {"wall_seconds": 0.5},
        """
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True: pass""",
    ),
    (
        "all processes killed",
        ["resource", "crashed"],
        {},
        "refused(os.kill, -1, signal.SIGKILL); os.kill(os.getpid(), 9)",
    ),
    ("result channel closed", ["crashed"], {}, "os.close(3); os._exit(0)"),
]

#: name → bytes that the job writes in place of its result
ANSWERS = {
    "NaN": """b'{"status":"ok","result":{"held":true,"a":NaN}}'""",
    "Infinity": """b'{"status":"ok","result":{"held":true,"a":-Infinity}}'""",
    "1e999": """b'{"status":"ok","result":{"held":true,"a":1e999}}'""",
    "depth": """b'{"status":"ok","result":{"held":true,"a":' + b'[' * 100000 + b']' * 100000 + b'}}'""",
    "depth of objects": """b'{"status":"ok","result":' + b'{"a":' * 150 + b'1' + b'}' * 150 + b'}'""",
    "a million keys": """
        b'{"status":"ok","result":{"held":true,' + b','.join(b'"%d":1' % n for n in range(500_000)) + b'}}'""",
    "NUL": r"""b'{"status":"ok","result":{"held":true,"a":"\\u0000"}}'""",
    "NUL in a key": r"""b'{"status":"ok","result":{"held":true,"\\u0000":1}}'""",
    "half a character": r"""b'{"status":"ok","result":{"held":true,"a":"\\ud800"}}'""",
    "broken UTF-8": r"""b'{"status":"ok","result":{"held":true,"a":"\xff\xfe"}}'""",
    "10,000 digits": """b'{"status":"ok","result":{"held":true,"a":' + b'9' * 10_000 + b'}}'""",
    "doubled key": """b'{"status":"ok","result":{"held":false,"held":true}}'""",
    "doubled key, spelt differently": r"""b'{"status":"ok","result":{"held":false,"\\u0068eld":true}}'""",
    "doubled envelope": """b'{"status":"code_error","status":"ok","result":{"held":true}}'""",
    "a list": """b'[{"held":true}]'""",
    "two answers": """b'{"status":"ok","result":{"held":true}}' * 2""",
    "too many bytes": """b'{"status":"ok","result":{"held":"' + b'x' * (9 << 20) + b'"}}'""",
    "a pickle": """__import__('pickle').dumps({'held': True})""",
}
