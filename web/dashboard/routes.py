"""The routes of the dashboard: pages, API, exports."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from telemetry_lake.dashboard.answers import Distribution, Evolution, Thresholds, distribution, evolution
from telemetry_lake.dashboard.cubes import Cubes
from telemetry_lake.dashboard.local_copy import NoCubes
from telemetry_lake.dashboard.resolve import SUGGESTIONS_MAX_COUNT, Resolved, UnknownMetric, resolve
from telemetry_lake.dashboard.search import QUERY_MAX_CHARACTERS
from telemetry_lake.dashboard.selection import FILTERS, PARAMETERS, Definition, parse_selection
from telemetry_lake.dashboard.shown_sql import distribution_sql, evolution_sql
from web.dashboard.documents import (
    ANSWER_MAX_BYTES,
    answer_document,
    data_document,
    distribution_csv,
    evolution_csv,
    fitting_count,
    limited,
    metric_document,
)
from web.dashboard.source import Reading, Source
from web.edge import PageNotFound
from web.layout import Layout

READ: Final = ["GET", "HEAD"]
METRICS_MAX_COUNT: Final = 5_000
METRICS_PAGE_MAX_COUNT: Final = 1_000
KEYS_OTHER_BYTES: Final = 1_000
"""What an answer about keys has besides the keys."""
SEARCH_DEFAULT_COUNT: Final = 12
_REVALIDATED: Final = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
_DESCRIBED: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": name == "metric",
            "description": description,
            "schema": {"type": "array", "items": {"type": "string"}}
            if name in (*FILTERS, "key")
            else {"type": "string"},
        }
        for name, description in PARAMETERS.items()
    ]
}
_SQL_INTRODUCTION: Final = """\
-- The numbers of this page from the table of aggregates. Save it and run: make query SQL="$(cat saved.sql)"
-- {address}
"""


@dataclass(frozen=True, slots=True)
class View:
    """One of the two views: how it is answered, and as what it can be had."""

    name: str
    title: str
    answer: Callable[[Cubes, Resolved, Thresholds], Distribution | Evolution]
    as_csv: Callable[[Resolved, Any], str]
    as_sql: Callable[[Cubes, Resolved, Definition | None, Thresholds], str]


VIEWS: Final = {
    view.name: view
    for view in (
        View("distribution", "Distribution", distribution, distribution_csv, distribution_sql),
        View("evolution", "Evolution", evolution, evolution_csv, evolution_sql),
    )
}


def dashboard_router(source: Source, layout: Layout) -> APIRouter:
    """Return the routes; all of them read and none changes anything."""
    router = APIRouter()

    @router.api_route("/api/v1/metrics", methods=READ, summary="Metrics by what people type")
    def metrics(
        request: Request,
        search: Annotated[str, Query(description="Parts of names or descriptions; may be misspelt.")] = "",
        limit: Annotated[int, Query(ge=1, le=METRICS_MAX_COUNT)] = SEARCH_DEFAULT_COUNT,
    ) -> Response:
        with source.reading() as reading:
            if (same := _known(request, reading)) is not None:
                return same
            found = reading.index.search(search[:QUERY_MAX_CHARACTERS], limit=limit)
            document = {
                "metrics": [metric_document(metric) for metric in found],
                "count": len(reading.index),
                "data": data_document(reading.cubes),
            }
            return _answered(reading, _json(document), "application/json")

    @router.api_route(
        "/api/v1/keys", methods=READ, summary="Keys of a keyed metric", openapi_extra=_DESCRIBED
    )
    def keys(request: Request) -> Response:
        with source.reading() as reading:
            if (same := _known(request, reading)) is not None:
                return same
            pairs = [pair for pair in request.query_params.multi_items() if pair[0] not in ("key", "rest")]
            selection = parse_selection(pairs, today=datetime.now(UTC).date())
            resolved = resolve(reading.cubes, reading.index, selection)
            return _answered(reading, _json(_keys_document(reading, resolved)), "application/json")

    for view in VIEWS.values():
        _add_view(router, view, source)
        _add_pages(router, view, source, layout)

    @router.api_route("/metrics", methods=READ, include_in_schema=False)
    def metrics_page(request: Request) -> Response:
        query = request.query_params.get("search", "")[:QUERY_MAX_CHARACTERS]
        with source.reading() as reading:
            found = reading.index.search(query, limit=METRICS_PAGE_MAX_COUNT)
            return layout.page(
                "metrics.html",
                request,
                title="Metrics",
                query=query,
                metrics=found,
                limit=METRICS_PAGE_MAX_COUNT,
                count=len(reading.index),
                stale_after_hours=source.stale_after_hours,
                data=data_document(reading.cubes),
            )

    @router.api_route("/api", methods=READ, include_in_schema=False)
    def api_page(request: Request) -> Response:
        return layout.page("api.html", request, title="API", parameters=PARAMETERS, views=list(VIEWS))

    return router


def _add_view(router: APIRouter, view: View, source: Source) -> None:
    path = f"/api/v1/{view.name}"

    def document(request: Request, file_name: Callable[[Resolved], str]) -> Response:
        with source.reading() as reading:
            if (same := _known(request, reading)) is not None:
                return same
            resolved = _selected(request, reading)
            answer = view.answer(reading.cubes, resolved, source.thresholds)
            content = _json(answer_document(reading.cubes, resolved, source.thresholds, answer))
            return _answered(reading, content, "application/json", file_name(resolved))

    @router.api_route(path, methods=READ, summary=view.title, openapi_extra=_DESCRIBED, name=view.name)
    def as_answer(request: Request) -> Response:
        return document(request, lambda _: "")

    @router.api_route(
        f"{path}.json", methods=READ, summary=f"{view.title} as a file", openapi_extra=_DESCRIBED
    )
    def as_json_file(request: Request) -> Response:
        return document(request, lambda resolved: _file_name(view, resolved, "json"))

    @router.api_route(f"{path}.csv", methods=READ, summary=f"{view.title} as CSV", openapi_extra=_DESCRIBED)
    def as_csv_file(request: Request) -> Response:
        with source.reading() as reading:
            if (same := _known(request, reading)) is not None:
                return same
            resolved = _selected(request, reading)
            answer = view.answer(reading.cubes, resolved, source.thresholds)
            return _answered(
                reading,
                view.as_csv(resolved, answer),
                "text/csv; charset=utf-8",
                _file_name(view, resolved, "csv"),
            )

    @router.api_route(
        f"{path}.sql", methods=READ, summary=f"{view.title} as a query", openapi_extra=_DESCRIBED
    )
    def as_sql_text(request: Request) -> Response:
        with source.reading() as reading:
            if (same := _known(request, reading)) is not None:
                return same
            resolved = _selected(request, reading)
            answer = view.answer(reading.cubes, resolved, source.thresholds)
            text = _SQL_INTRODUCTION.format(address=f"/{view.name}?{request.url.query}")
            text += view.as_sql(reading.cubes, resolved, answer.definition, source.thresholds)
            return _answered(reading, text, "text/plain; charset=utf-8")


def _add_pages(router: APIRouter, view: View, source: Source, layout: Layout) -> None:
    def page(request: Request, *, embedded: bool) -> Response:
        pairs = [pair for pair in request.query_params.multi_items() if pair[1]]
        if any(name == "metric" for name, _ in pairs):
            selection = parse_selection(pairs, today=datetime.now(UTC).date())
            # Without data yet the page is shown, and waits for the first.
            with suppress(NoCubes), source.reading() as reading:
                if selection.metric not in reading.cubes.metrics:
                    raise UnknownMetric(
                        selection.metric, reading.index.similar(selection.metric, limit=SUGGESTIONS_MAX_COUNT)
                    )
        elif pairs:
            parse_selection([("metric", "any"), *pairs], today=datetime.now(UTC).date())
        return layout.page(
            "view.html",
            request,
            title=view.title,
            view=view.name,
            query=request.url.query,
            has_metric=any(name == "metric" for name, _ in pairs),
            embedded=embedded,
            stale_after_hours=source.stale_after_hours,
        )

    @router.api_route(f"/{view.name}", methods=READ, include_in_schema=False)
    def whole_page(request: Request) -> Response:
        return page(request, embedded=False)

    @router.api_route(f"/embed/{view.name}", methods=READ, include_in_schema=False)
    def embedded_page(request: Request) -> Response:
        if "metric" not in request.query_params:
            raise PageNotFound
        return page(request, embedded=True)


def _known(request: Request, reading: Reading) -> Response | None:
    """Return the answer to a client that has this version already."""
    if request.headers.get("if-none-match") == reading.etag:
        return Response(status_code=304, headers={**_REVALIDATED, "ETag": reading.etag})
    return None


def _answered(reading: Reading, content: str, media_type: str, file_name: str = "") -> Response:
    headers = {**_REVALIDATED, "ETag": reading.etag}
    if file_name:
        headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return Response(limited(content), media_type=media_type, headers=headers)


def _selected(request: Request, reading: Reading) -> Resolved:
    pairs = request.query_params.multi_items()
    return resolve(reading.cubes, reading.index, parse_selection(pairs, today=datetime.now(UTC).date()))


def _keys_document(reading: Reading, resolved: Resolved) -> dict[str, object]:
    """Return as many keys of a metric as an answer has room for, and what the others add up to."""
    all_keys = replace(resolved.row_filter, keys=(), with_rest=False)
    found = (
        reading.cubes.keys(resolved.selection.view, all_keys)
        if resolved.metric.is_keyed and resolved.reason is None
        else ()
    )
    listed = [
        {"key": key.key, "pings": key.pings, "samples": key.samples} for key in found if key.key is not None
    ]
    fitting = fitting_count(listed, ANSWER_MAX_BYTES - KEYS_OTHER_BYTES)
    rest = next((key for key in found if key.key is None), None)
    return {
        "keys": listed[:fitting],
        "left_out": len(listed) - fitting,
        "rest": None
        if rest is None
        else {"pings": rest.pings, "samples": rest.samples, "keys": rest.rest_keys},
    }


def _file_name(view: View, resolved: Resolved, ending: str) -> str:
    names: Sequence[str] = (resolved.metric.name, view.name, *resolved.selection.filters["channel"])
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", name) for name in names)[:120] + f".{ending}"


def _json(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), allow_nan=False)
