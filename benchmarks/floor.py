"""The part that is not Dagster's: the same plan without an engine, in a process of its own."""

from __future__ import annotations

import sys
import uuid

from benchmarks.cpu import own_cpu
from benchmarks.home import add_mailbox, bench_home, invoice_workflow, waiting_mails
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.compiler.step import Work, walk


def floor(batch: int) -> float:
    """CPU seconds for one invoice: journal, nodes and sandbox (its start too), no engine."""
    with bench_home() as services:
        compiled = invoice_workflow(services)
        credential = add_mailbox(services)
        ids = waiting_mails(services, compiled, credential, batch, first=0)
        began = own_cpu()
        journal = Journal(services.databases.nova, run_id=str(uuid.uuid4()))
        work = Work(plan=compiled.plan, workflow_id=compiled.workflow_id, journal=journal, services=services)
        held = journal.claim(ids, compiled.version_id)
        results = walk(work, held)
        services.close()
        assert len(results["end"].outputs["result"]) == batch, results
        return (own_cpu() - began) / batch


if __name__ == "__main__":
    print(floor(int(sys.argv[1])))
