"""What every backend promises: the same jobs, the same outcomes. Isolation is not asked here."""

from __future__ import annotations

import json
import time

import pytest

from nova_pipelines.adapters.sandbox.base import Job, Limits, Status, Task
from nova_pipelines.domain.errors import ConfigurationError, PermanentError
from nova_pipelines_tests.adapters.sandbox.conftest import draw_pdf

HOSTILE_TEXT = "''' + __import__('os').getcwd() + '''\n\"quote\" \\ {x} ñ € \u2028 \U0001f9fe"


def code(text: str, context: dict | None = None, **limits) -> Job:
    return Job(code=text, context=context or {}, limits=Limits(wall_seconds=30, **limits) if limits else Limits())


def failed(session, text: str, **limits):
    outcome = session.run(code(text, **limits))
    assert not outcome.ok
    assert outcome.result is None
    assert outcome.error
    return outcome


def test_context_goes_in_and_comes_out(session):
    outcome = session.run(code("context['total'] = context['net'] + 21\nprint('hola')", {"net": 100}))
    assert outcome.status is Status.OK
    assert outcome.result == {"net": 100, "total": 121}
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == ("hola\n", "", 0)
    assert outcome.wall_ms > 0
    assert outcome.sandbox_id


def test_the_context_is_never_source(session):
    """Old defect 2: the context was pasted into a string literal."""
    outcome = session.run(code("context['copy'] = context['subject']", {"subject": HOSTILE_TEXT}))
    assert outcome.result == {"subject": HOSTILE_TEXT, "copy": HOSTILE_TEXT}


def test_a_rebound_context_is_the_result(session):
    assert session.run(code("context = {'new': [1, (2, 3)]}", {"old": 1})).result == {"new": [1, [2, 3]]}


def test_functions_classes_and_imports_see_each_other(session):
    text = "import json\nclass A:\n  x = 2\ndef f():\n  return json.dumps(A.x)\ncontext['f'] = f()\nexit()"
    assert session.run(code(text)).result == {"f": "2"}


def test_files_lie_in_the_working_folder(session):
    job = Job(
        code="context['n'] = len(open('a.bin','rb').read()); open('new','w').write('x')", files={"a.bin": b"\0\1\2"}
    )
    assert session.run(job).result == {"n": 3}
    assert session.run(code("import os; context['left'] = os.listdir('.')")).result == {"left": []}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", ".", "a/b", "a\0b"])
def test_names_of_files_are_plain(session, name):
    with pytest.raises(PermanentError, match="name for a file"):
        session.run(Job(files={name: b""}))


def test_each_job_is_a_fresh_process(session):
    session.run(code("import builtins, os; builtins.left = 1; os.environ['LEFT'] = '1'"))
    text = "import builtins, os; context['seen'] = [hasattr(builtins, 'left'), 'LEFT' in os.environ]"
    assert session.run(code(text)).result == {"seen": [False, False]}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = 1\n\nraise ValueError('bad')", "ValueError: bad (line 3: `raise ValueError('bad')`)"),
        ("import json\njson.loads('{')", "(line 2: `json.loads('{')`)"),
        ("def f():\n  return 1/0\nf()", "ZeroDivisionError: division by zero (line 2: `return 1/0`)"),
        ("context['a']\n", "KeyError: 'a' (line 1: `context['a']`)"),
        ("x = 1\nif x\n  pass", "SyntaxError: expected ':' (line 2, column 5: `if x`)"),
        ("a = '\0'", "null bytes"),
        ("import sys\nsys.exit(3)", "sys.exit(3) (line 2: `sys.exit(3)`)"),
        ("context = [1]", "left a list in `context`"),
        ("del context", "deleted `context`"),
        ("def f(): f()\nf()", "RecursionError"),
        ("raise Exception('half \\ud800 \\0 done')", "Exception: half ?"),
        ("class E(Exception):\n def __str__(self): raise OSError\nraise E", "E: (its text cannot be had)"),
        ("import nothing_here", "ModuleNotFoundError: No module named 'nothing_here' (line 1"),
    ],
)
def test_errors_name_the_users_line(session, text, error):
    outcome = failed(session, text)
    assert outcome.status is Status.CODE_ERROR
    assert error in outcome.error


def test_the_traceback_is_on_stderr_and_shows_only_the_users_frames(session):
    outcome = failed(session, "def f():\n  raise ValueError('bad')\nf()")
    assert 'File "<node code>", line 2, in f\n    raise ValueError' in outcome.stderr
    assert "guest" not in outcome.stderr


def test_sys_exit_without_a_code_is_an_end(session):
    assert session.run(code("import sys\ncontext['a'] = 1\nsys.exit()")).result == {"a": 1}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import datetime; context['a'] = {'b': [1, datetime.date.today()]}", "context.a.b[1] is a date"),
        ("import decimal; context['a'] = decimal.Decimal(1)", "context.a is a Decimal"),
        ("context['a'] = {1, 2}", "context.a is a set"),
        ("context['a'] = b''", "context.a is a bytes"),
        ("context['a'] = [float('nan')]", "context.a[0] is nan"),
        ("context['a'] = float('inf')", "context.a is inf"),
        ("context['a'] = 10 ** 100", "context.a is an integer of more than 64 bits"),
        ("context['a'] = 10 ** 10000", "context.a is an integer of more than 64 bits"),
        ("context['a'] = 'x\\0y'", "context.a holds a NUL"),
        ("context['a\\0'] = 1", "context has a key with a NUL"),
        ("context['a'] = '\\ud800'", "context.a holds half a character"),
        ("context['a'] = context", "nested deeper than 100"),
        ("context[(1, 2)] = 3", "context has a key of type tuple"),
        ("a = context\nfor _ in range(150):\n a['a'] = {}; a = a['a']", "nested deeper than 100"),
        ("context.update((str(i), 0) for i in range(200_000))", "more than 100000 keys"),
    ],
)
def test_results_that_are_not_clean_json_are_refused_with_their_place(session, text, place):
    outcome = failed(session, text)
    assert outcome.status is Status.BAD_RESULT
    assert place in outcome.error


@pytest.mark.parametrize(
    "forged",
    [
        '{"status":"ok","result":{"a":NaN}}',
        '{"status":"ok","result":{"a":1e999}}',
        '{"status":"ok","result":{"a":"\\ud800"}}',
        '{"status":"ok","result":' + '{"a":' * 5000 + "1" + "}" * 5001,
        '{"status":"ok","result":[1]}',
        '{"status":"timeout","error":"x"}',
        '{"status":"missing_package","error":"x"}',
        '{"status":"ok","result":{"a":' + "9" * 10_000 + "}}",
        "[]",
        "no json",
    ],
)
def test_forged_answers_are_refused(session, forged):
    text = f"import os\nos.write(3, {forged!r}.encode())\nos._exit(0)"
    assert failed(session, text).status is Status.BAD_RESULT


def test_a_process_that_ends_without_a_result(session):
    outcome = failed(session, "import os; print('so far'); os._exit(7)")
    assert outcome.status is Status.CRASHED
    assert (outcome.exit_code, outcome.stdout) == (7, "so far\n")
    outcome = failed(session, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.status is Status.CRASHED
    assert "SIGSEGV" in outcome.error


def test_wall_time(session):
    started = time.monotonic()
    job = Job(code="print('begun')\nimport time\ntime.sleep(100)", limits=Limits(wall_seconds=0.5))
    outcome = session.run(job)
    assert outcome.status is Status.TIMEOUT
    assert outcome.stdout == "begun\n"
    assert "0.5 s" in outcome.error
    assert time.monotonic() - started < 20


def test_cpu_time_even_if_the_signal_is_ignored(session):
    text = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    outcome = failed(session, text, cpu_seconds=1)
    assert outcome.status is Status.TIMEOUT
    assert "CPU" in outcome.error


def test_memory(session):
    outcome = failed(session, "x = bytearray(2_000_000_000)", memory_bytes=200_000_000)
    assert outcome.status is Status.RESOURCE
    outcome = failed(session, "x = []\nwhile True: x.append('y' * 1000)", memory_bytes=200_000_000)
    assert outcome.status is Status.RESOURCE


def test_file_size(session):
    outcome = failed(session, "open('big', 'wb').write(bytes(3_000_000))", disk_bytes=1_000_000)
    assert outcome.status is Status.RESOURCE
    assert "OSError" in outcome.error


def test_too_large_a_result(session):
    outcome = failed(session, "context['a'] = 'x' * 300_000", result_bytes=200_000)
    assert outcome.status is Status.RESOURCE
    flood = "import os\nwhile True: os.write(3, bytes(60_000))"
    job = Job(code=flood, limits=Limits(wall_seconds=1, result_bytes=200_000))
    assert session.run(job).status in {Status.TIMEOUT, Status.RESOURCE}


def test_output_is_cut_and_marked(session):
    text = "import sys\nfor _ in range(300): print('x' * 9999)\nsys.stderr.write('short')\ncontext['done'] = True"
    outcome = session.run(code(text, output_bytes=50_000))
    assert outcome.result == {"done": True}
    assert (len(outcome.stdout), outcome.stdout_truncated) == (50_000, True)
    assert (outcome.stderr, outcome.stderr_truncated) == ("short", False)


def test_output_that_is_not_text(session):
    text = "import os; print('\\ud800 \\0'); os.system('printf \"\\\\377 shell\"')"
    outcome = session.run(code(text))
    assert outcome.ok
    assert outcome.stdout == "\\ud800 \ufffd\n\ufffd shell"


def test_daemons_end_with_their_job(session):
    text = """
import os, time
reading, writing = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(writing, str(os.getpid()).encode())
    while True:
        time.sleep(1)
context['pid'] = int(os.read(reading, 20))
"""
    pid = session.run(code(text)).result["pid"]
    text = f"""
try:
    import os
    os.kill({pid}, 0)
    context['alive'] = True
except ProcessLookupError:
    context['alive'] = False
"""
    assert session.run(code(text)).result == {"alive": False}


@pytest.mark.parametrize("text", ["import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "import os\nos.close(3)"])
def test_the_next_job_is_unharmed(session, text):
    session.run(Job(code=text, limits=Limits(wall_seconds=5)))
    assert session.run(code("context['a'] = 1")).result == {"a": 1}


def test_a_context_that_is_not_json_is_the_hosts_fault(session):
    with pytest.raises(PermanentError, match="not JSON"):
        session.run(Job(context={"a": object()}))


def test_a_closed_session_says_so(sandbox):
    with sandbox.session() as session:
        session.run(Job())
    with pytest.raises(ConfigurationError, match="closed"):
        session.run(Job())
    session.close()


def test_pdf_text(session, invoice_pdf):
    outcome = session.run(Job(task=Task.PDF_TEXT, files={"document.pdf": invoice_pdf}))
    assert outcome.ok, outcome.error
    assert "TOTAL 1.234,56 EUR" in outcome.result["pages"][0]
    assert outcome.result["page_count"] == 1
    assert outcome.result["pages_read"] == [1]
    assert outcome.result["method"] == "pypdfium2"
    assert outcome.result["text_truncated"] is False


def test_pdf_words(session, invoice_pdf):
    outcome = session.run(Job(task=Task.PDF_WORDS, files={"document.pdf": invoice_pdf}))
    assert outcome.ok, outcome.error
    (words,) = outcome.result["pages"]
    word = next(word for word in words if word["text"] == "1.234,56")
    assert set(word) == {"text", "x0", "x1", "top", "bottom"}
    assert word["x0"] < word["x1"]
    assert word["top"] < word["bottom"]


@pytest.mark.parametrize("task", [Task.PDF_TEXT, Task.PDF_WORDS])
def test_documents_that_cannot_be_read(session, invoice_pdf, task):
    documents = {
        "not_a_pdf": b"GIF89a",
        "broken": b"%PDF-1.7\n" + invoice_pdf[len(invoice_pdf) // 2 : -200],
        "encrypted": draw_pdf(["secret"], password="s3cret"),
    }
    for error, data in documents.items():
        outcome = session.run(Job(task=task, files={"document.pdf": data}))
        assert outcome.ok, outcome.error
        assert outcome.result["error"] == error
        assert outcome.result["message"]


def test_of_a_long_document_the_two_ends_are_read(session):
    data = draw_pdf([], pages=70)
    result = session.run(Job(task=Task.PDF_TEXT, files={"document.pdf": data})).result
    assert result["page_count"] == 70
    assert result["pages_read"] == [*range(1, 51), *range(66, 71)]
    assert result["pages"][-1].strip() == "page 70"


def test_of_a_long_text_the_beginning_is_kept(session):
    data = draw_pdf(["x" * 70] * 20, pages=5)
    limits = Limits(result_bytes=5000)
    result = session.run(Job(task=Task.PDF_TEXT, files={"document.pdf": data}, limits=limits)).result
    assert result["text_truncated"] is True
    assert len(json.dumps(result)) <= 5000
