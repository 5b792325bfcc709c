"""COHORT.csv with every kind of fault: what is said of which line."""

from __future__ import annotations

import pytest
from small_cohort import write_table

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation.table import read_table
from hipnet_edge.vocabulary import CAUSES, Laterality


def rows_of(n):
    return [
        {
            "ap": f"{i}/ap.dcm",
            "lateral": f"{i}/lateral.dcm",
            "cause": CAUSES[i % 5].value,
            "patient_id": f"Doe-{i}",
            "crp": "12.5",
            "side": "left",
        }
        for i in range(n)
    ]


def complaint(path):
    with pytest.raises(UsageError) as raised:
        read_table(path)
    assert "Doe" not in raised.value.message  # a table's faults are told to others
    return raised.value.message


def test_every_bad_row_is_named(tmp_path):
    rows = rows_of(60)
    rows[3]["cause"] = "tired"
    rows[5]["ap"] = rows[2]["ap"]
    rows[7]["lateral"] = rows[7]["ap"]
    rows[9]["crp"] = "<5"
    rows[11]["side"] = "upper"
    rows[13]["lateral"] = ""
    said = complaint(write_table(tmp_path / "t.csv", rows))
    for line, words in (
        (5, "unknown cause 'tired'"),
        (7, "its file in column ap is that of line 4, column ap"),
        (9, "this row's own"),
        (11, "crp is no number of 0 or more"),
        (13, "side is neither left nor right"),
        (15, "no file in column lateral"),
    ):
        assert any(f"line {line}: " in s and words in s for s in said.splitlines()), words
    assert "6 bad rows" in said
    rows = [{**row, "cause": "?"} for row in rows_of(80)]
    said = complaint(write_table(tmp_path / "t.csv", rows))
    assert "80 bad rows" in said
    assert said.rstrip().endswith("79, 80, 81")  # beyond fifty by their lines alone


def test_a_name_in_place_of_a_cause_is_not_told(tmp_path):
    rows = [{**row, "cause": row["patient_id"], "patient_id": row["cause"]} for row in rows_of(10)]
    said = complaint(write_table(tmp_path / "t.csv", rows))
    assert "the column patient_id holds causes" in said
    assert "line 7: unknown cause" in said
    (tmp_path / "t.csv").write_text("ap,lateral,cause\na,b,pji\nc,d,pji\ne,f,Doe,pji\n")
    assert "line 4: unknown cause" in complaint(tmp_path / "t.csv")


def test_causes_in_another_column_are_noticed(tmp_path):
    rows = [{**row, "cause": row["side"], "side": row["cause"]} for row in rows_of(10)]
    assert "the column side holds causes" in complaint(write_table(tmp_path / "t.csv", rows))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("ap,lateral,cause\n", "no studies"),
        ("ap,lateral\na,b\n", "no column cause"),
        ("ap,lateral,cause,ap\na,b,pji,c\n", "two columns named ap"),
        ("ap,lateral,cause\na,b\n", "line 2: 2 cells, the header has 3"),
        ('ap,lateral,cause\na,b,"pji\n', "no CSV"),
        (b"ap,lateral,cause\n\xff\xfe,b,pji\n", "UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert words in complaint(tmp_path / "t.csv")
    assert "cannot be read" in complaint(tmp_path / "none.csv")


def test_tables_as_spreadsheets_write_them_are_read(tmp_path):
    text = (
        "﻿AP;Lateral;Cause;Patient_ID;CRP;Side;Remark\r\n"
        "a.dcm;b.dcm;Aseptic loosening;7;12,5;L;x\r\n"
        "c.dcm;d.dcm;PJI;7;;right;\r\n"
        "e.dcm;f.dcm;;8;;;\r\n\r\n"
    )
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv")
    assert [row.cause for row in table.rows] == [1, 0, -1]
    assert [row.patient for row in table.rows] == [0, 0, 1]
    assert [row.side for row in table.rows] == [Laterality.LEFT, Laterality.RIGHT, None]
    assert table.rows[0].numbers["crp"] == 12.5
    said = " ".join(table.notices)
    for words in (
        "1 patients have several studies",
        "No study with dislocation",
        "1 studies name no cause",
        "not used: remark",
    ):
        assert words in said


def test_studies_without_a_patient_are_patients_of_their_own_and_it_is_said(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "patient_id"} for row in rows_of(3)]
    table = read_table(write_table(tmp_path / "t.csv", rows))
    assert [row.patient for row in table.rows] == [0, 1, 2]
    assert "3 studies name no patient" in " ".join(table.notices)
