"""How the site is built: `python -m sphinx -W -n docs docs/_build`. Nothing is fetched from anywhere."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from armed_audit import claims, pages, versions
from armed_model import events, specification
from armed_model.profiles import REFERENCE

project = "armed"
copyright = "the armed developers"
release = version = version_of("armed")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4

html_theme = "furo"
html_title = f"armed {version}"
html_static_path = ["_static"]
html_css_files = ["armed.css"]
html_copy_source = False
html_show_sourcelink = False

smartquotes = False
default_role = "code"  # docstrings say `name`
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
nitpick_ignore_regex = [
    # What is not ours has no place here to link to: nothing is fetched.
    ("py:.*", r"(?!armed).*"),
    ("py:class", r"armed\.engagement\.T"),  # a type variable
    ("py:class", r"armed\.early\.Rope"),  # the launcher's, not the user's
]

GENERATED = {
    "lifecycle": specification.lifecycle,
    "lifecycle picture": specification.lifecycle_picture,
    "state": specification.state,
    "actions": specification.actions,
    "profiles": specification.profiles,
    "properties": specification.properties_in_words,
    "assumptions": specification.assumptions,
    "matrix picture": pages.matrix_picture,
    "matrix viewer": pages.matrix_viewer,
    "counterexamples": pages.counterexamples,
}
"""What stands in a page as `<!-- generated: NAME -->` is replaced by what the function returns."""

WRITTEN = {"versions": versions.markdown, "events": events.markdown, "claims": claims.markdown}
"""The pages that are written from data by `armed export`, and kept."""

_PLACE = re.compile(r"<!-- generated: ([a-z ]+) -->")
_NAME = re.compile(r"(?<![`\[])`(\w+)`(?![`\]])")
_PROPERTIES = {claim.name: f"property-{claim.name}" for claim in specification.claimed(REFERENCE)}
_ACTIONS = {name: f"action-{name}" for mine in specification.variants().values() for name in mine}


def _generate(_app: object, page: str, source: list[str]) -> None:
    """Put in what is generated, and make of each property's name a link to it; of an action's only among the claims.

    Elsewhere `take` may be a method, and `started` an event.
    """
    known = {**_ACTIONS, **_PROPERTIES} if page == "claims" else _PROPERTIES
    try:
        text = _PLACE.sub(lambda place: GENERATED[place[1]](), source[0])
    except pages.Stale as error:
        raise SystemExit(str(error)) from error
    source[0] = _NAME.sub(lambda name: f"[{name[0]}](#{known[name[1]]})" if name[1] in known else name[0], text)


def _generated_anew(app: Any, *_: object) -> list[str]:
    """Name the pages with generated parts: they are read each time, as the definition may have changed."""
    return [name for name in app.env.found_docs if _PLACE.search(app.env.doc2path(name).read_text())]


def _check(app: Any) -> None:
    """End with one line where a citation dangles, or a page that is written from data is not what the data says."""
    try:
        claims.check()
    except claims.Dangling as error:
        raise SystemExit(str(error)) from error
    for name, write in WRITTEN.items():
        if (Path(app.srcdir) / f"{name}.md").read_text() != write():
            raise SystemExit(f"docs/{name}.md is not what it is written from: armed export {name} > docs/{name}.md")


def _plain(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Have docstrings, which are plain text, read as such: a star is a star, a column of arguments is a list."""
    text = re.sub(r"(?<=[( ])(\*+)(?=\w+[,)])", lambda stars: r"\*" * len(stars[1]), "\n".join(lines))
    text = re.sub(r"^(\w+) {2,}(\S)", r"\1\n    \2", text, flags=re.MULTILINE)
    lines[:] = re.sub(r"^ {4,}", "    ", text, flags=re.MULTILINE).split("\n") if text != "\n".join(lines) else lines


def setup(app: Any) -> None:
    """Have pages generated when they are read, and the citations checked before."""
    app.connect("builder-inited", _check)
    app.connect("env-get-outdated", _generated_anew)
    app.connect("source-read", _generate)
    app.connect("autodoc-process-docstring", _plain)
