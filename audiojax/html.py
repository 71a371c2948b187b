"""Pages of HTML from the templates in `page/`, each whole in one file."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from typing import Any

import jinja2
from markupsafe import Markup

from audiojax import figures


def render(template: str, **values: Any) -> str:
    """The page that a template of `page/` makes of values, with its style in it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiojax", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    style = importlib.resources.files("audiojax") / "page" / "report.css"
    return environment.get_template(template).render(
        style=Markup(style.read_text("utf-8")),
        version=importlib.metadata.version("audiojax"),
        **values,
    )


def _shown(value: Any) -> Any:
    """Text as a page can hold it; names may hold bytes that are no text."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return figures.drawable([value])[0] if plain else value
