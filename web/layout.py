"""Pages: one layout, one navigation, one style for all sections."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry_lake import __version__
from web.static_files import StaticFiles


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation."""

    title: str
    path: str
    keeps_selection: bool = False
    """Whether the page takes over what is chosen on the page before it."""
    about: str = ""
    """What is there, for the start page."""


class Layout:
    """Renders the templates of `web/pages`."""

    def __init__(self, static_files: StaticFiles, navigation: Sequence[Link]) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "navigation": navigation,
            "static": static_files.path,
            "release": __version__,
        }

    def page(
        self, template: str, request: Request, *, status: HTTPStatus = HTTPStatus.OK, **values: object
    ) -> Response:
        """Return the page that `template` makes of `values`."""
        text = self._environment.get_template(template).render(path=request.url.path, **values)
        return Response(text, status, media_type="text/html; charset=utf-8")

    def error_page(self, request: Request, status: HTTPStatus, sentence: str) -> Response:
        """Return the page that says what is wrong."""
        return self.page(
            "error.html", request, status=status, title=status.phrase, sentence=sentence, code=status.value
        )
