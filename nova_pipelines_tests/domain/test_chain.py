"""The audit chain: whatever is done to its rows is found, and named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.domain.chain import GENESIS, HASHED_FIELDS, canonical_json, row_hash, verify

ONE_OTHER = {
    "execution_id": 8,
    "node_id": "other",
    "node_type": "end",
    "code_executed": "pass ",
    "input_context": '{"a":2}',
    "output_result": None,
    "execution_time": 0.500001,
    "status": "failed",
    "error_message": "",
    "decision_result": "false",
    "path_taken": "false",
    "run_id": "run-2",
    "timestamp": "2026-08-01T08:00:00.000001+00:00",
    "prev_hash": "1" * 64,
}


def chain(length: int, execution_id: int = 7) -> list[dict]:
    """A genuine chain as the journal writes it."""
    rows, previous = [], GENESIS
    for seq in range(1, length + 1):
        row = {
            "execution_id": execution_id,
            "seq": seq,
            "node_id": f"node{seq}",
            "node_type": "action",
            "code_executed": "pass",
            "input_context": '{"a":1}',
            "output_result": f'{{"a":{seq}}}',
            "execution_time": 0.5,
            "status": "success",
            "error_message": None,
            "decision_result": "true",
            "path_taken": "true",
            "run_id": "run-1",
            "timestamp": "2026-08-01T08:00:00+00:00",
            "prev_hash": previous,
        }
        previous = row_hash(row)
        rows.append(row | {"id": 100 + 3 * seq, "hash": previous})
    return rows


def rehashed(rows: list[dict], since: int) -> list[dict]:
    """What a forger makes of rows from `since` on: hashes and links that fit again."""
    made = rows[:since]
    for row in rows[since:]:
        row = row | {"prev_hash": made[-1]["hash"] if made else GENESIS}
        made.append(row | {"hash": row_hash(row)})
    return made


def found(rows: list[dict], genuine: list[dict], **recorded) -> list[tuple[int, int | None, str]]:
    recorded = {"head": genuine[-1]["hash"] if genuine else "", "length": len(genuine)} | recorded
    breaks = verify(7, rows, **recorded)
    assert all(entry.execution_id == 7 for entry in breaks)
    return [(entry.seq, entry.row_id, entry.reason) for entry in breaks]


def test_every_field_of_a_row_is_hashed():
    assert set(HASHED_FIELDS) == {"seq", *ONE_OTHER}


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_an_untouched_chain_is_intact(length):
    assert found(chain(length), chain(length)) == []


@pytest.mark.parametrize("head", ["", GENESIS])
def test_an_execution_without_rows_is_intact(head):
    assert verify(7, [], head=head, length=0) == []


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("field", sorted(ONE_OTHER))
def test_a_change_of_any_field_names_its_row(field, at):
    rows = chain(5)
    rows[at][field] = ONE_OTHER[field]
    breaks = found(rows, chain(5))
    assert (at + 1, rows[at]["id"], "the row was changed: its hash does not fit") in breaks
    assert {row_id for _, row_id, _ in breaks} == {rows[at]["id"]}


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_changed_hash_names_its_row(at):
    rows = chain(5)
    rows[at]["hash"] = "f" * 64
    assert (at + 1, rows[at]["id"], "the row was changed: its hash does not fit") in found(rows, chain(5))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"\x00", {1, 2}, object()])
@pytest.mark.parametrize("field", ["execution_time", "status", "prev_hash"])
def test_a_value_that_cannot_be_hashed_is_a_change_and_no_crash(field, value):
    rows = chain(3)
    rows[1][field] = value
    assert (2, rows[1]["id"], "the row was changed: its hash does not fit") in found(rows, chain(3))


@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_change_with_a_fitting_hash_breaks_the_link(at):
    rows = chain(5)
    rows[at]["status"] = "failed"
    rows[at]["hash"] = row_hash(rows[at])
    reason = "the row does not follow the row before it: one of the two was changed"
    assert found(rows, chain(5)) == [(at + 2, rows[at + 1]["id"], reason)]


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_chain_made_anew_does_not_fit_the_recorded_head(at):
    rows = chain(5)
    rows[at]["status"] = "failed"
    reason = "the execution's recorded head does not fit its last row"
    assert found(rehashed(rows, at), chain(5)) == [(5, rows[4]["id"], reason)]


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (1, 1, "row 1 is missing"),
        (3, 3, "row 3 is missing"),
        (5, 5, "row 5 is missing"),
        (1, 2, "rows 1 to 2 are missing"),
        (2, 4, "rows 2 to 4 are missing"),
        (4, 5, "rows 4 to 5 are missing"),
        (1, 5, "rows 1 to 5 are missing"),
    ],
)
def test_removed_rows_are_counted(first, last, reason):
    rows = [row for row in chain(5) if not first <= row["seq"] <= last]
    assert found(rows, chain(5)) == [(first, None, reason)]


def test_a_removed_row_whose_gap_was_closed_is_found():
    rows = chain(5)
    del rows[2]
    for seq, row in enumerate(rows, 1):
        row["seq"] = seq
    assert (5, None, "row 5 is missing") in found(rehashed(rows, 2), chain(5))
    assert found(rehashed(rows, 2), chain(5), length=4) == [
        (4, rows[-1]["id"], "the execution's recorded head does not fit its last row")
    ]


@pytest.mark.parametrize("at", [1, 3, 5])
def test_an_inserted_row_is_found_and_its_neighbours_are_not_blamed(at):
    rows = chain(5)
    forged = rows[at - 1] | {"id": 999, "status": "failed"}
    forged["hash"] = row_hash(forged)
    for place in (at - 1, at):  # before or after the genuine one
        breaks = found([*rows[:place], forged, *rows[place:]], chain(5))
        assert {row_id for _, row_id, _ in breaks} <= {999, rows[at - 1]["id"], *[row["id"] for row in rows[at:][:1]]}
        assert any(reason == "a row was inserted: its place is taken twice" for _, _, reason in breaks)
        assert all("follow" not in reason and "changed" not in reason for _, _, reason in breaks)


def test_a_row_before_the_first_is_found():
    rows = chain(3)
    forged = rows[0] | {"id": 50, "seq": 0}
    forged["hash"] = row_hash(forged)
    assert (0, 50, "a row was inserted: its place is taken twice") in found([forged, *rows], chain(3))


def test_a_row_added_at_the_end_is_found():
    rows = chain(6)
    assert found(rows, chain(5)) == [(6, rows[5]["id"], "a row was added after the recorded end")]


def test_rows_of_another_execution_are_found():
    other = chain(3, execution_id=8)
    breaks = found(other, other)
    assert [(seq, row_id) for seq, row_id, _ in breaks] == [(row["seq"], row["id"]) for row in other]
    assert all(reason == "the row belongs to another execution: 8" for _, _, reason in breaks)


@pytest.mark.parametrize("one", range(4))
def test_swapped_rows_are_found(one):
    swapped = chain(5)
    swapped[one]["seq"], swapped[one + 1]["seq"] = swapped[one + 1]["seq"], swapped[one]["seq"]
    swapped.sort(key=lambda row: row["seq"])
    assert {one + 1, one + 2} <= {seq for seq, _, _ in found(swapped, chain(5))}
    with_new_ids = chain(5)
    with_new_ids[one]["id"], with_new_ids[one + 1]["id"] = with_new_ids[one + 1]["id"], with_new_ids[one]["id"]
    assert found(with_new_ids, chain(5))


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        ({"head": "0" * 63 + "1"}, "the execution's recorded head does not fit its last row"),
        ({"head": ""}, "the execution's recorded head does not fit its last row"),
        ({"length": 4}, "a row was added after the recorded end"),
        ({"length": 6}, "row 6 is missing"),
        ({"length": 9}, "rows 6 to 9 are missing"),
        ({"length": 0}, "a row was added after the recorded end"),
    ],
)
def test_a_changed_head_or_length_is_found(recorded, reason):
    assert [entry[2] for entry in found(chain(5), chain(5), **recorded)] == [reason]


@given(st.integers(1, 6), st.data())
def test_any_change_of_any_value_is_found(length, data):
    rows = chain(length)
    row = data.draw(st.sampled_from(rows))
    field = data.draw(st.sampled_from(sorted({*HASHED_FIELDS, "hash"} - {"seq"})))
    value = data.draw(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8))
    if canonical(value) != canonical(row[field]):
        row[field] = value
        assert found(rows, chain(length))


def canonical(value) -> str:
    try:
        return canonical_json(value)
    except ValueError:
        return repr(value)


@given(st.integers(1, 8), st.data())
def test_any_other_choice_of_the_rows_is_found(length, data):
    picked = data.draw(st.lists(st.sampled_from(range(length)), max_size=length + 2))
    if picked != list(range(length)):
        rows = chain(length)
        assert found([rows[index] for index in picked], rows)


@given(st.text(), st.text())
def test_texts_cannot_be_moved_between_fields(one, two):
    row = chain(1)[0]
    split = row | {"error_message": one, "decision_result": two}
    joined = row | {"error_message": one + two, "decision_result": ""}
    assert (row_hash(split) == row_hash(joined)) == (two == "")


def test_the_canonical_text_is_one_and_refuses_what_is_no_json():
    assert canonical_json({"b": [1, 1.5, None, True], "a": "ñ\n"}) == '{"a":"ñ\\n","b":[1,1.5,null,true]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
    with pytest.raises(TypeError):
        canonical_json({"a": {1, 2}})
