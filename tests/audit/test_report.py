"""`armed report`: what it says, that it says the same each time, and what it says of evidence that is not good."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from armed_audit import report as reports
from armed_audit import traceability as trace
from armed_audit import verify as verification
from armed_audit.bench import Ratio, Row
from armed_audit.cli import run
from armed_audit.figures import heat_maps, plots
from armed_audit.verify import QUICK, Part, Verification
from armed_model.interpret import Size
from armed_proofs import tlc

ROOT = Path(__file__).parents[2]
TIMES = re.compile(r"<!-- times -->.*<!-- end of times -->", re.DOTALL)


def change(evidence, **new):
    file = evidence / "verify.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | new))


def versions_with(evidence, **new):
    return {"versions": json.loads((evidence / "verify.json").read_text())["versions"] | new}


# --- What it says ----------------------------------------------------------------------------------------------------


def test_the_same_evidence_gives_the_same_bytes_but_for_the_times(evidence, verified, tmp_path):
    pages = []
    for name in ("one", "two"):
        copy = str(tmp_path / "x.json")
        assert run(["report", str(tmp_path / name), "--evidence", str(evidence), "--json", copy]) == 0
        data = json.loads((tmp_path / name / "report.json").read_text())
        assert data == json.loads(Path(copy).read_text())
        data.pop("times")
        page, count = TIMES.subn("", (tmp_path / name / "report.html").read_text())
        assert count == 1
        pages.append((page, json.dumps(data)))
        slower = [cell | {"seconds": 99.0} for cell in verified["matrix"]]
        parts = [part | {"seconds": 99.0} for part in verified["parts"]]
        change(evidence, matrix=slower, parts=parts, seconds=99.0)
    assert pages[0] == pages[1]
    assert "99.0" in (tmp_path / "two" / "report.html").read_text()


def test_every_section_is_there_and_every_link_leads_somewhere(evidence, tmp_path):
    page = reports.write(reports.gather(evidence), tmp_path / "out").read_text()
    ids = set(re.findall(r' id="([^"]+)"', page))
    assert {"claim", "results", "not-shown", "base", "assumptions", "claims", "properties", "again", "times"} <= ids
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) > 300
    for link in set(links):
        file, _, line = link.partition("#L")
        if link.startswith("#"):
            assert link[1:] in ids, link
        else:
            text = (tmp_path / "out" / file).read_text()
            assert not line or 1 <= int(line) <= len(text.splitlines()), link
    assert not re.search(r"(src|href)=\"(https?:)?//|@import|url\(", page)


def test_a_property_has_its_sentence_citation_scope_verdict_texts_tests_and_line(evidence):
    data = reports.gather(evidence)
    of = {each["name"]: each for each in data["properties"]}["armed_exit_triggers_recovery"]
    assert of["sentence"].startswith("After an armed child is reaped")
    assert "C1" in of["cites"]
    lines = (ROOT / of["file"]).read_text().splitlines()
    assert '"armed_exit_triggers_recovery"' in "".join(lines[of["line"] - 1 : of["line"] + 1])
    assert any(place["name"].startswith("test_") for place in of["tests"])
    verdicts = {(each["profile"], each["children"]): each for each in of["verdicts"]}
    assert verdicts["18", "all"]["verdict"] == "refuted"
    assert verdicts["18", "backends alone"]["verdict"] == "proved"
    proved = verdicts["reference", "all"]
    assert proved["scope"] == "unbounded"
    assert {"A1", "A9"} <= set(proved["assumptions"])
    assert proved["obligations"] > 30
    assert proved["premise"] == 9


def test_the_hashes_of_the_texts_are_those_that_the_commands_print(evidence):
    data = reports.gather(evidence)
    (system,) = data["systems"]
    assert system["invariant"] > 100
    assert system["agreed"] == system["invariant"] + system["properties"]
    commands = {each["what"]: each["command"] for each in data["check_again"]}
    for what in ("one text: its hash", "the digest of a system"):
        ran = subprocess.run(["bash", "-c", commands[what]], cwd=evidence, capture_output=True, text=True, timeout=60)
        expected = commands[what].rpartition("# ")[2] if "# " in commands[what] else system["digest"]
        assert ran.stdout.split()[0] == expected, ran.stderr
    written = [cell for each in data["properties"] for cell in each["verdicts"] if cell["texts"]]
    assert written
    index = json.loads((evidence / "smt2" / "index.json").read_text())["obligations"]
    hashes = sorted(each["sha256"] for each in index if each["property"] == "supervisor_survives_stray_writes")
    assert hashes == []  # of another environment than the one that was written
    name = next(each["property"] for each in index if each["property"])
    mine = sorted(each["sha256"] for each in index if each["property"] == name)
    (of,) = [each for each in data["properties"] if each["name"] == name]
    (shown,) = [cell for cell in of["verdicts"] if cell["texts"]]
    assert shown["digest"] == hashlib.sha256("".join(f"{each}\n" for each in mine).encode()).hexdigest()


def test_texts_of_another_run_are_not_taken_for_this_one_s(evidence):
    assert reports.gather(evidence)["systems"]
    file = evidence / "smt2" / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run": "another"}))
    data = reports.gather(evidence)
    assert data["systems"] == []
    assert not [cell for each in data["properties"] for cell in each["verdicts"] if cell["texts"]]
    assert "the queries as SMT-LIB text" in "".join(data["not_shown"]["not_run"])


def test_what_was_not_run_is_listed(evidence):
    not_shown = reports.gather(evidence)["not_shown"]
    told = "\n".join(not_shown["not_run"])
    for word in ("TLC: Java is missing", "armed mutate", "armed bench", "PostgreSQL"):
        assert word in told
    assert "reference: armed_exit_leads_to_restart" in not_shown["without_texts"]
    refuted = [each["steps"] for each in not_shown["refuted"] if each["property"] == "armed_exit_triggers_recovery"]
    assert refuted == [{"18": 6}, {"no-dead-man-switch": 9}]
    assert all(each["reason"] for each in not_shown["out_of_scope"])
    assert not_shown["left_out"]


def test_mutants_are_told_of_where_there_are_results(evidence):
    kills = {"slot_has_one_owner": {"all": 31, "alone": 4}}
    of = json.loads((evidence / "verify.json").read_text())["versions"]
    mutants = {"mutants": 40, "counts": {}, "survivors": [], "kills": kills, "only": ""}
    mutants |= {"commit": of["commit"], "changed": False}
    (evidence / "mutants.json").write_text(json.dumps(mutants))
    data = reports.gather(evidence)
    found = {each["name"]: each["kills"] for each in data["properties"]}
    assert found["slot_has_one_owner"] == {"all": 31, "alone": 4}
    assert found["decision_is_exact"] == {"all": 0, "alone": 0}
    assert "kills 31, 4 of them alone" in reports.render(data)
    assert not any("mutants" in each for each in data["not_shown"]["not_run"])
    assert data["not_shown"]["of_another_commit"] == []
    for differs, told in (({"commit": "abc"}, "mutants.json: of commit abc"), ({"changed": True}, ", with changes")):
        (evidence / "mutants.json").write_text(json.dumps(mutants | differs))
        data = reports.gather(evidence)
        (line,) = data["not_shown"]["of_another_commit"]
        assert told in line
        assert line in reports.render(data)


def test_mutants_that_survive_and_those_that_were_not_tried_are_told(evidence, tmp_path, capsys):
    of = json.loads((evidence / "verify.json").read_text())["versions"]
    mutants = {"mutants": 1, "counts": {}, "kills": {}, "commit": of["commit"], "changed": False}
    survives = mutants | {"survivors": ["arm without <it>"], "only": ""}
    (evidence / "mutants.json").write_text(json.dumps(survives | {"commit": "0123abcd"}))  # of what is mended since
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 0
    assert "a mutant survives" not in capsys.readouterr().out
    (evidence / "mutants.json").write_text(json.dumps(survives))
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 1
    said = capsys.readouterr().out
    assert "a mutant survives: arm without <it>" in said
    assert "The evidence does not hold" in said
    assert "a mutant survives: arm without &lt;it&gt;" in (tmp_path / "out" / "report.html").read_text()
    (evidence / "mutants.json").write_text(json.dumps(mutants | {"survivors": [], "only": "kill"}))
    data = reports.gather(evidence)
    assert "mutants of the specification, but for those with kill in their names" in data["not_shown"]["not_run"]
    assert "(of those with kill in their names)" in reports.render(data)


def test_what_the_evidence_says_is_no_markup(evidence, verified):
    planted = "</script><script>alert(1)</script>"
    for part in verified["parts"]:
        part["notes"] = [planted]
    for cell in verified["matrix"]:
        cell["sentence"] = cell["reason"] = planted
    change(evidence, parts=verified["parts"], matrix=verified["matrix"], left_out=[planted])
    page = reports.render(reports.gather(evidence))
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


@pytest.fixture
def bench():
    rows = [
        Row("detect", "0 MB touched", "pidfd", "ms", [1.0, 2.0, 3.0]),
        Row("detect", "0 MB touched", "armed <&>", "ms", [10.0, 20.0, 300.0], ratios=[Ratio("pidfd", 10.0, 1.15)]),
        Row("detect", "0 MB touched", "absent", "ms", not_run="not installed"),
    ]
    opinion = tlc.Opinion("18", "calm", Size(1, 1), 12_345, 12_345, 3, ("x",), (), 0.25, 3.5)
    topics = {"detect": [row.as_json() for row in rows], "rest": [], "explore": [opinion.as_json()]}
    machine = {"cores": 2, "kernel": "k", "python": "p", "load": 0.9}
    return {"machine": machine, "topics": topics, "not_run": {"recover": "left out"}}


def test_benchmarks_and_coverage_are_drawn(evidence, bench, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "bench.json").write_text(json.dumps(bench))
    page = reports.write(reports.gather(evidence, out), out).read_text()
    assert page.count("<svg") == 1
    assert "not met: 1.15" in page
    assert "Others were using this machine" in page
    assert "detect, 0 MB touched, absent: not installed" in page
    assert "recover: left out" in page
    assert "12,345" in page
    assert "armed &lt;&amp;&gt;" in page
    drawn = plots(bench)
    centres = [float(each) for each in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert len(centres) == 2
    assert centres[0] < centres[1]  # 2 ms is left of 20 ms
    assert 'class="heat-0">0<' in page
    assert re.search(r'class="heat-[1-5]">3<', page)


def test_a_heat_map_is_the_darker_the_more_was_seen():
    drawn = heat_maps([{"part": "p", "tables": {"t": {"r": {"a": 0, "b": 1, "c": 10, "d": 1000}}}}])
    assert [int(each) for each in re.findall(r'class="heat-(\d)"', drawn)] == [0, 1, 2, 5]
    only_once = heat_maps([{"part": "p", "tables": {"t": {"r": {"a": 0, "b": 1}}}}])
    assert [int(each) for each in re.findall(r'class="heat-(\d)"', only_once)] == [0, 1]


# --- Traceability ----------------------------------------------------------------------------------------------------


def test_the_claims_are_those_of_the_documents():
    rows = re.findall(r"^\| (C\d+) \| (.*) \|$", (ROOT / "docs" / "claims.md").read_text(), re.MULTILINE)
    assert dict(rows) == {name: claim["sentence"] for name, claim in trace.claims().items()}
    assert list(trace.claims()) == [f"C{number}" for number in range(1, 17)]


def test_nothing_leads_nowhere(verified):
    assert trace.dangling(trace.citing(), trace.claims(), trace.code(), verified["matrix"], trace.tests()) == []


def test_each_claim_leads_to_the_model_or_says_why_not(evidence):
    for each in reports.gather(evidence)["claims"]:
        cited = each["rows"] or each["actions"] or each["properties"]
        assert bool(cited) != bool(each["not_modelled"]), each["claim"]
    first = reports.gather(evidence)["claims"][0]
    assert any(place["file"].startswith("impl/armed/") for place in first["code"])
    assert any(place["file"].startswith("tests/") for place in first["tests"])
    assert {"name": "raw_exit", "file": "model/armed_model/system.py"}.items() <= first["actions"][0].items()


def test_an_action_leads_to_where_it_is_defined_and_not_to_where_it_is_named():
    text = (ROOT / "model/armed_model/system.py").read_text().splitlines()
    places = trace.definitions("model/armed_model/system.py")
    for name in ("started", "reset", "all_gone", "stop", "raw_exit", "assign"):
        around = "".join(text[places[name].line - 2 : places[name].line + 1])
        assert f'"{name}"' in around, name
        assert "_action(" in around or "name, for_whom" in around, name


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ({"cites": ["C17"]}, "cites C17, which is no claim"),
        ({"assumptions": ["A99"]}, "assumes A99, which is not said"),
        ({"property": "dreamt"}, "is of no property of this model"),
        ({"obligations": 0}, "is proved by no query"),
        ({"premise": None}, "no run reaches its premise"),
        ({"verdict": "refuted", "finding": None}, "is refuted by no run"),
        ({"verdict": "out of scope"}, "is out of scope for no reason"),
        ({"verdict": "unknown"}, "is 'unknown', which is no verdict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cell_that_leads_nowhere_fails_the_report(planted, told, evidence, verified, tmp_path, capsys):
    at = next(i for i, cell in enumerate(verified["matrix"]) if cell["verdict"] == "proved" and cell["profile"] == "18")
    verified["matrix"][at] |= planted
    change(evidence, matrix=verified["matrix"])
    assert told in "\n".join(trace.dangling(trace.citing(), trace.claims(), (), verified["matrix"]))
    if "cites" in planted:
        assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 1
        assert told in (tmp_path / "out" / "report.html").read_text()
        assert "lead nowhere" in capsys.readouterr().out


def test_citations_that_lead_nowhere_are_found():
    promised = {"C1": {"sentence": "a"}, "C2": {"sentence": "b"}, "C3": {"sentence": "c", "not_modelled": "why"}}
    cited = [trace.Citing("action", "arm", ("C1", "C3", "C17", "969d7cd4315b"))]
    assert trace.dangling(cited, promised, ["C18"]) == [
        "the action arm cites C17, which is neither a claim nor a commit",
        "the supervisor's code cites C18, which is no claim",
        "nothing in the model cites C2, and nothing says why",
        "C3 is said not to be modelled, and is cited",
    ]
    promised["C4"] = {"sentence": "d", "untested": "why"}
    tested = {"C1": [trace.Place("test_it", "tests/x.py", 1)], "C2": []}
    assert trace.dangling(cited[:0], promised, (), (), tested)[-2:] == [
        "no test names C2, and nothing says why",
        "nothing in the model cites C4, and nothing says why",
    ]


# --- Evidence that is not good ---------------------------------------------------------------------------------------


def test_evidence_of_this_commit_is_not_stale(evidence):
    change(evidence, **versions_with(evidence, changed=False))
    stale = reports.gather(evidence)["stale"]
    assert not [line for line in stale if "commit" in line]


@pytest.mark.parametrize(
    ("versions", "told"),
    [({"commit": "0123abcd"}, "of commit 0123abcd"), ({"armed": "0.0.9"}, "of version 0.0.9"),
     ({"changed": True}, "not committed"), ({"commit": ""}, "does not say of which commit")],
)  # fmt: skip
def test_evidence_of_something_else_is_said_to_be_stale_at_the_top(versions, told, evidence, tmp_path, capsys):
    change(evidence, **versions_with(evidence, **versions))
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert told in page[: page.index("<nav")]
    assert "The evidence is stale" in page[: page.index("<nav")]
    assert "stale:" in capsys.readouterr().out


def test_evidence_of_the_same_commit_is_stale_where_files_differ_from_it_now(evidence, monkeypatch):
    monkeypatch.setattr(reports, "changed", lambda: True)
    (line,) = reports.gather(evidence)["stale"]
    assert line.startswith("The work tree has changes that are not committed")


def test_stale_lines_come_in_the_same_order_always(evidence, verified):
    change(evidence, matrix=[cell for cell in verified["matrix"] if cell["property"] != "slot_has_one_owner"])
    assert [line.rpartition(" ")[2] for line in reports.gather(evidence)["stale"]] == ["18.", "reference."]


def test_a_profile_of_which_nothing_is_decided_fails_the_report(evidence, verified, tmp_path, capsys):
    change(evidence, matrix=[cell for cell in verified["matrix"] if cell["profile"] != "reference"])
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 1
    assert "nothing is decided in reference" in capsys.readouterr().out


@pytest.mark.parametrize("planted", ["no parts", "a part that failed", "nothing was run"])
def test_evidence_that_contradicts_itself_is_no_evidence(planted, evidence, verified, tmp_path, capsys):
    parts = {
        "no parts": [],
        "a part that failed": [*verified["parts"], verified["parts"][0] | {"holds": False, "failures": ["planted"]}],
        "nothing was run": [part for part in verified["parts"] if part["not_run"]],
    }
    change(evidence, parts=parts[planted])
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 2
    assert "contradicts itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "planted"),
    [("bench.json", {"machine": {}, "topics": {}}), ("verify.json", {"matrix": [{"premise": [{"arguments": []}]}]})],
    ids=["bench", "run"],
)
def test_what_cannot_be_shown_is_one_clear_line(file, planted, evidence, verified, tmp_path, capsys):
    if file == "verify.json":
        at = next(i for i, cell in enumerate(verified["matrix"]) if cell["premise"])
        verified["matrix"][at] |= planted["matrix"][0]
        change(evidence, matrix=verified["matrix"])
    else:
        (evidence / file).write_text(json.dumps(planted))
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 2
    assert "is of another format" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_property_without_a_verdict_makes_it_stale(evidence, verified):
    change(evidence, matrix=[cell for cell in verified["matrix"] if cell["property"] != "slot_has_one_owner"])
    assert "It has no verdict of slot_has_one_owner in 18." in reports.gather(evidence)["stale"]


def test_evidence_that_does_not_hold_fails_the_report_and_says_so_first(evidence, verified, tmp_path):
    verified["parts"][0] |= {"holds": False, "failures": ["planted failure"]}
    change(evidence, parts=verified["parts"], holds=False)
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "planted failure" in page[: page.index("<nav")]
    assert "Every part of it that was run holds" not in page


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("verify.json", "{", "verify.json is no JSON"),
        ("verify.json", "[]", "is not what `armed` writes there"),
        ("verify.json", '{"parts": []}', "it has no matrix"),
        ("mutants.json", "{}", "it has no kills"),
        ("bench.json", "x", "bench.json is no JSON"),
        ("smt2/index.json", "{}", "it has no obligations"),
        ("verify.json", json.dumps(dict.fromkeys(
            ("parts", "matrix", "assumptions", "versions", "left_out", "extent", "run"), ())), "is of another format"),
    ],
)
def test_evidence_that_cannot_be_read_is_one_clear_line(file, content, told, evidence, tmp_path, capsys):
    (evidence / file).write_text(content)
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("armed: ")
    assert not list((tmp_path / "out").iterdir())


def test_cells_of_another_format_are_one_clear_line(evidence, verified, tmp_path, capsys):
    change(evidence, matrix=[{"profile": "18"}])
    assert run(["report", str(tmp_path / "out"), "--evidence", str(evidence)]) == 2
    assert "is of another format" in capsys.readouterr().err


@pytest.mark.parametrize("directory", ["file", "file/below"])
def test_a_directory_that_cannot_be_written_is_one_clear_line(directory, evidence, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(["report", str(tmp_path / directory), "--evidence", str(evidence)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("armed: ")
    assert said.count("\n") == 1
    assert str(tmp_path / directory) in said


def test_without_evidence_and_with_no_run_it_refuses(tmp_path, capsys):
    assert run(["report", str(tmp_path / "out"), "--evidence", str(tmp_path / "none"), "--no-run"]) == 2
    assert "run armed verify, or give --evidence" in capsys.readouterr().err


def test_without_evidence_it_is_made_first_and_that_is_said(matrices, monkeypatch, tmp_path, capsys):
    def quickly(**arguments):
        assert arguments["extent"] is verification.USUAL
        run = Verification(QUICK, strict=False, seed=1, matrices=matrices)
        run.parts.append(Part("proofs", "decided", counts={"proved": 1}))
        return run

    monkeypatch.setattr(verification, "verify", quickly)
    assert run(["report", str(tmp_path / "out"), "--evidence", str(tmp_path / "new")]) == 0
    assert "running armed verify first" in capsys.readouterr().err
    assert (tmp_path / "new" / "verify.json").exists()
    assert (tmp_path / "out" / "report.html").exists()


def test_ctrl_c_is_one_line_and_leaves_the_last_report_as_it_was(evidence, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["report", str(out), "--evidence", str(evidence)]) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reports, "render", interrupted)
    assert run(["report", str(out), "--evidence", str(evidence)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert before.keys() == {"report.html", "report.json"}


# --- In a browser ----------------------------------------------------------------------------------------------------


def test_the_whole_report_shows_in_a_browser_and_asks_for_nothing(browser, evidence, bench, tmp_path):
    (evidence / "bench.json").write_text(json.dumps(bench))
    page = reports.write(reports.gather(evidence), tmp_path / "out")
    browser.open(page)
    browser.size(360)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.run("document.querySelector('button.refuted').click()")
    assert browser.run("document.querySelector('output').textContent").startswith("Step 0 of ")
    browser.media(scheme="dark")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
    browser.media()
    assert browser.pdf().startswith(b"%PDF-")
    assert browser.complaints == []
    assert browser.requests == [page.as_uri()]


def test_an_installation_without_tests_does_not_say_that_there_are_none(evidence, monkeypatch):
    monkeypatch.setattr(trace, "repository", lambda: None)
    data = reports.gather(evidence)
    page = reports.render(data)
    assert "No test names it" not in page
    assert "none names one" not in page
    assert any("they are not in this installation" in line for line in data["not_shown"]["not_run"])
