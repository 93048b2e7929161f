"""The page as HTML: one file that needs nothing else, or the shell of a live one."""

from __future__ import annotations

import base64
import hashlib
import html as escapes
import json
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from string import Template

from stretto.page.head import heading
from stretto.page.sections import EARLY, LATE, SECTIONS, STYLES, Data, static
from stretto.page.subject import Subject

_OFFERED = 10  # runs


def html(subject: Subject, *, progress: Callable[[str], None] = lambda _: None) -> str:
    """Give the page of a run or a plan as one file that asks nobody for anything.

    Args:
        subject: What it is about.
        progress: Told what is being made.
    """
    called = heading(subject)
    blocks = [_block("page", {"title": called, "live": False})]
    for section in SECTIONS:
        progress(f"drawing {section.name}")
        still = section.still
        data = section.data(subject) if still is None else still(subject, progress)
        if data is not None:
            blocks.append(_block(section.name, data))
    style = "\n".join(static(name) for name in STYLES)
    early, late = ([static(name) for name in names] for names in (EARLY, LATE))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {' '.join(_hash(text) for text in (*early, *late))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return _page(
        called,
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        home=f'<strong class="home">{escapes.escape(called)}</strong>',
        early=[f"<style>{style}</style>", *(f"<script>{text}</script>" for text in early)],
        body="",
        data=blocks,
        late=[f"<script>{text}</script>" for text in late],
    )


def shell(title: str, blocks: Data, *, scripts: Iterable[str] = LATE) -> str:
    """Give a live page, which asks the server for what it draws.

    Args:
        title: What it is about.
        blocks: What its scripts find in it, by name; ``page`` says which run it is of.
        scripts: What draws it.
    """
    page = {"title": title, "live": True, **blocks.get("page", {})}
    home = f"<strong>{escapes.escape(title)}</strong>"
    if "run" in page:
        home = f'<a href="/">Runs</a> <span aria-hidden="true">/</span> {home}'
    return _live(title, {**blocks, "page": page}, home=home, scripts=scripts)


def missing(title: str, text: str, *, runs: Sequence[str]) -> str:
    """Give what somebody is shown who asked for what there is not.

    Args:
        title: What is wrong, in a few words.
        text: The same in full.
        runs: What there is instead, by name.
    """
    named = [(urllib.parse.urlencode({"run": name}), escapes.escape(name)) for name in runs]
    links = "".join(f'<li><a href="/run?{q}">{n}</a></li>' for q, n in named[:_OFFERED])
    there = f'<p>The runs that wrote last:</p><ul class="offered">{links}</ul>' if links else ""
    called = escapes.escape(title)
    return _live(
        title,
        {"page": {"title": title, "live": True}},
        home=f'<a href="/">Runs</a> <span aria-hidden="true">/</span> <strong>{called}</strong>',
        body=f'<section class="section"><h1>{called}</h1><div class="card missing">'
        f'<p>{escapes.escape(text)}</p>{there}<p><a class="button" href="/">All runs</a></p>'
        "</div></section>",
    )


def as_json(value: Data) -> str:
    """Give JSON as the page reads it: compact, and only numbers that JSON has."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _live(
    title: str, blocks: Data, *, home: str, scripts: Iterable[str] = (), body: str = ""
) -> str:
    return _page(
        title,
        policy="",
        home=f'<span class="home">{home}</span>',
        early=[
            *(f'<link rel="stylesheet" href="/static/{name}">' for name in STYLES),
            *(f'<script src="/static/{name}"></script>' for name in EARLY),
        ],
        body=body,
        data=[_block(name, block) for name, block in blocks.items()],
        late=[f'<script src="/static/{name}"></script>' for name in scripts],
    )


def _page(title: str, **parts: str | Iterable[str]) -> str:
    texts = {k: part if isinstance(part, str) else "\n".join(part) for k, part in parts.items()}
    tab = escapes.escape(f"{title} · Stretto")
    return Template(static("index.html")).substitute(texts, title=tab)


def _block(name: str, value: Data) -> str:
    text = as_json(value).replace("<", "\\u003c")  # nothing in it can end the element
    return f'<script type="application/json" id="data-{name}">{text}</script>'


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
