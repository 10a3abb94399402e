"""A page as the bytes of one HTML file, which asks for nothing outside of itself.

A policy in its head forbids every request and every script but its own, so that not even a name with markup
in it, were it not escaped, could do anything.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from riemannopt_dist.reports.page.parts import Page

HERE = Path(__file__).parent


def rendered(page: Page) -> bytes:
    """The page's file: the same bytes for the same page."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = (
        _environment()
        .get_template("page.html")
        .render(page=page, style=style, script=script, script_digest=digest)
    )
    return html.encode()


def data_uri(content: str | bytes, kind: str) -> str:
    """Content of a MIME type as an address that holds it."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment
