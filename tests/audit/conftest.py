"""Evidence of two profiles and a control."""

import json
import shutil

import pytest

from armed_audit import report as reports
from armed_audit.verify import QUICK, Part, Verification
from armed_model.profiles import REFERENCE
from armed_model.system import System
from armed_proofs import cvc5_opinion
from armed_proofs.evidence import write_evidence
from armed_proofs.matrix import decide

RUN = "0123456789abcdef"


@pytest.fixture(scope="session")
def matrices():
    """What is really decided of one of PostgreSQL's profiles, of ours, and of a negative control."""
    return decide(["18", "reference", "no-dead-man-switch"])


@pytest.fixture
def verified(matrices):
    """The JSON of a verification whose proofs were run, and whose other parts are of the usual form."""
    run = Verification(QUICK, strict=False, seed=7, matrices=matrices, seconds=1.0, changes="", id=RUN)
    run.parts = [
        Part("proofs", "decided", counts={"proved": 1}, seconds=0.5),
        Part("cvc5", "a second solver", counts={"obligations": 1}),
        Part("TLC", "a second opinion", not_run="Java is missing"),
        Part("conformance", "compared", counts={"histories": 2, "deaths": {"SIGKILL": 3}}, notes=["a <note>"],
             tables={"cells": {"serving, idle": {"SIGKILL": 3, "return": 0}}}),
    ]  # fmt: skip
    return json.loads(json.dumps(run.as_json()))


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A directory with the queries of one small system, written down and answered by two solvers."""
    folder = tmp_path_factory.mktemp("texts")
    write_evidence(folder, [System(REFERENCE, "+orphan")], ask=cvc5_opinion.ask, versions=["cvc5 x"], run=RUN, jobs=1)
    return folder


@pytest.fixture
def evidence(verified, texts, tmp_path, monkeypatch):
    """An evidence directory, in a work tree without changes."""
    monkeypatch.setattr(reports, "changed", lambda: False)
    folder = tmp_path / "evidence"
    shutil.copytree(texts, folder)
    (folder / "verify.json").write_text(json.dumps(verified))
    return folder
