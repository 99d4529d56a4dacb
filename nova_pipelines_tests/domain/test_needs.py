"""What code of nodes needs from outside, read without running it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nova_pipelines.domain.needs import NodeNeeds, needs_of, unmet
from nova_pipelines.domain.workflow import Definition
from nova_pipelines.nodes.registry import definition_from

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import imaplib", ["imaplib"]),
        ("import os, smtplib as mail", ["smtplib"]),
        ("from psycopg2.extras import execute_values", ["psycopg2.extras"]),
        ("import urllib.request", ["urllib.request"]),
        ("from urllib import request, parse", ["urllib.request"]),
        ("from http import client", ["http.client"]),
        ("def f():\n    try:\n        import requests\n    except ImportError:\n        pass", ["requests"]),
        ("import importlib\nimportlib.import_module('requests.sessions')", ["requests.sessions"]),
        ("from importlib import import_module\nimport_module('socket')", ["socket"]),
        ("__import__('psycopg2')", ["psycopg2"]),
        ("import urllib.parse, json, email, http, fitz", []),
        ("from urllib.parse import quote\nfrom email.mime.text import MIMEText", []),
        ("import socketry, sslib, requests_mock_of_ours", []),
        ("name = 'x'\n__import__(name)\n'import socket'  # import ssl", []),
        ("from . import socket", []),
        ("this is no Python", []),
    ],
)
def test_imports_that_need_a_network(code: str, modules: list[str]):
    assert list(needs_of(code).modules) == modules


@pytest.mark.parametrize(
    ("code", "keys"),
    [
        ("x = context['imap_host'], context[\"email_password\"]", ["email_password", "imap_host"]),
        ("context.get('smtp_port', 587)", ["smtp_port"]),
        ("context.get('sender_whitelist', [])", ["sender_whitelist"]),
        ("f\"{context['db_user']}@{context['db_host']}\"", ["db_host", "db_user"]),
        ("c = context\nd = c.copy()\nd['db_name']", ["db_name"]),
        ("def send(ctx, text):\n    return ctx['smtp_host']\nsend(context, 'hello')", ["smtp_host"]),
        ("context['client_slug'], context['total_amount']", []),
        ("settings = {'db_host': 'h'}\nsettings['db_host']", []),
        ("context['db_host'] = 'own'\ncontext['db_host']", []),
        ("context.update({'db_host': 'own'}, db_port=1)\ncontext['db_host'], context['db_port']", []),
        ("context.setdefault('db_port', 5432)\ncontext['db_port']", []),
        ("context['db_host'] = context['db_host'].strip()", ["db_host"]),
        ("host = context['db_host']\ncontext['db_host'] = 'other'", ["db_host"]),
        ("# context['db_host']\n\"context['db_host']\"", []),
    ],
)
def test_credentials_that_are_read(code: str, keys: list[str]):
    assert list(needs_of(code).reads) == keys


def test_code_that_is_made_to_take_long_does_not():
    chain = "\n".join(f"a{n} = a{n + 1}" for n in range(3_000, 0, -1))
    assert needs_of(f"a3001 = context\n{chain}\na1['db_host']").modules == ()
    assert needs_of("x = context" + ".copy()" * 800 + "['db_host']").reads in ((), ("db_host",))


# ---------------------------------------------------------------- in a whole definition


def diamond(left: str, right: str, after: str) -> Definition:
    nodes = [
        {"id": "start", "type": "start"},
        {"id": "which", "type": "decision", "code": "context['branch_decision'] = True"},
        {"id": "left", "type": "action", "code": left},
        {"id": "right", "type": "action", "code": right},
        {"id": "after", "type": "action", "code": after},
        {"id": "end", "type": "end"},
    ]
    pairs = [("start", "which"), ("left", "after"), ("right", "after"), ("after", "end")]
    edges = [{"from": a, "to": b} for a, b in pairs]
    edges += [{"from": "which", "to": way, "condition": word} for way, word in (("left", "true"), ("right", "false"))]
    return definition_from({"name": "Diamond", "nodes": nodes, "edges": edges})


SET, READ, NOTHING = "context['db_host'] = 'own'", "context['db_host']", "pass"


@pytest.mark.parametrize(
    ("definition", "nodes"),
    [
        (diamond(SET, SET, READ), []),
        (diamond(SET, NOTHING, READ), ["after"]),
        (diamond(READ, SET, NOTHING), ["left"]),
        (diamond(NOTHING, NOTHING, NOTHING), []),
    ],
    ids=["both ways set it", "one way does not", "the other way's is none of its own", "nobody reads it"],
)
def test_a_key_that_every_way_sets_is_the_workflows_own(definition: Definition, nodes: list[str]):
    found = unmet(definition, network=False, available=(), initial=())
    assert [need.node_id for need in found] == nodes
    assert unmet(definition, network=False, available=["db_host"], initial=()) == []
    assert unmet(definition, network=False, available=(), initial=["db_host"]) == []


def test_the_needs_of_the_old_invoice_workflow():
    definition = definition_from(json.loads((FIXTURES / "old_invoice_processing.json").read_text()))
    mail = ("email_password", "email_user", "smtp_host", "smtp_port")

    found = {need.node_id: need for need in unmet(definition, network=False, available=(), initial=())}

    assert [*found] == ["read_and_extract", "send_rejection", "send_high_budget", "save_db"]
    assert found["send_high_budget"] == NodeNeeds("send_high_budget", ("smtplib",), mail)
    assert found["save_db"].keys == ("db_host", "db_name", "db_password", "db_port", "db_user")
    assert str(found["save_db"]).startswith("node 'save_db' needs the network (psycopg2) and credentials (db_host, ")
    keys = {key for need in found.values() for key in need.keys}
    assert [need.keys for need in unmet(definition, network=False, available=keys, initial=())] == [()] * 4
    assert unmet(definition, network=True, available=keys, initial=()) == []
