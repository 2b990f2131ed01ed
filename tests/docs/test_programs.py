"""The programs in the documents run, and print what the documents say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def programs():
    for document in DOCUMENTS:
        for number, (program, output) in enumerate(PROGRAM.findall(document.read_text()), 1):
            yield pytest.param(program, output, id=f"{document.name}-{number}")


@pytest.mark.parametrize(("program", "output"), list(programs()))
def test_a_program_prints_what_the_document_says(program, output, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(program)
    ran = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    assert ran.stdout == output
    assert ran.returncode == 0


def test_every_program_has_its_output_beside_it():
    found = list(programs())
    assert len(found) == sum(document.read_text().count("```python") for document in DOCUMENTS) >= 3


def test_every_link_leads_somewhere():
    links = [(document, link) for document in DOCUMENTS for link in LINK.findall(document.read_text())]
    assert links
    for document, link in links:
        assert (document.parent / link).exists(), f"{document.name}: {link}"
