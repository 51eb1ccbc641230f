"""The documents of the project, docs/*.md, as pages."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from telemetry_lake.project_files import PROJECT_ROOT
from web.edge import PageNotFound
from web.layout import Layout, Link
from web.markdown import DOCUMENTS, html_of, sections

DOCUMENTS_DIRECTORY: Final = PROJECT_ROOT / "docs"
READ: Final = ["GET", "HEAD"]


def document_router(layout: Layout, directory: Path = DOCUMENTS_DIRECTORY) -> APIRouter:
    """Return the routes of the list of documents and of each of them."""
    router = APIRouter(include_in_schema=False)
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(directory.glob("*.md"))}
    links = [Link(_title(text) or name, f"{DOCUMENTS}/{name}") for name, text in texts.items()]

    @router.api_route(DOCUMENTS, methods=READ)
    def documents(request: Request) -> Response:
        return layout.page("documents.html", request, title="Documents", documents=links)

    @router.api_route(f"{DOCUMENTS}/{{name}}", methods=READ)
    def document(request: Request, name: str) -> Response:
        if name not in texts:
            raise PageNotFound
        text = texts[name]
        return layout.page(
            "document.html", request, title=_title(text) or name, content=html_of(text.splitlines())
        )

    return router


def _title(text: str) -> str:
    first = next(iter(sections(text)), None)
    return "" if first is None else first.title
