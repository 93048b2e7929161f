"""The page as HTML: one file that needs nothing else, or the shell of a live one."""

from __future__ import annotations

import base64
import hashlib
import html as escapes
import json
from collections.abc import Callable, Iterable
from string import Template

from stretto.page.head import heading
from stretto.page.sections import EARLY, LATE, SECTIONS, STYLES, Data, static
from stretto.page.subject import Subject


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
    return _page(
        title,
        policy="",
        home=f'<span class="home">{home}</span>',
        early=[
            *(f'<link rel="stylesheet" href="/static/{name}">' for name in STYLES),
            *(f'<script src="/static/{name}"></script>' for name in EARLY),
        ],
        data=[_block(name, block) for name, block in {**blocks, "page": page}.items()],
        late=[f'<script src="/static/{name}"></script>' for name in scripts],
    )


def as_json(value: Data) -> str:
    """Give JSON as the page reads it: compact, and only numbers that JSON has."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


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
