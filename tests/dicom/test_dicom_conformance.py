"""The Conformance Statement says in what form the objects are kept, and sent."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pydicom

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_the_objects_are_of_the_stated_classes_and_syntaxes(made):
    section = PAGE.read_text().split("\n## AE specifications: DELIVER\n")[1].split("\n## ")[0]
    stated = set(re.findall(r"^\|[^|]+\| `([\d.]+)` \| `([\d.]+)` \|$", section, re.MULTILINE))
    found = set()
    for content in made.files.values():
        dataset = pydicom.dcmread(BytesIO(content))
        found.add((str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)))
        assert dataset.file_meta.ImplementationClassUID in PAGE.read_text()
    assert found == stated
