"""The paths of Mozilla's aggregation service, for pages that were written for it, and its script."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Request, Response

from telemetry_lake.dashboard import old_service
from web.dashboard.documents import ANSWER_MAX_BYTES, limited
from web.dashboard.source import Reading, Source

READ: Final = ["GET", "HEAD"]
FOUR_HOURS: Final = 4 * 60 * 60
"""How long the service's own script keeps an answer."""
LEFT_OUT_HEADER: Final = "X-Labels-Left-Out"
"""How many labels of a keyed metric an answer has no room for."""


def old_router(source: Source) -> APIRouter:
    """Return the routes; any site may read them."""
    router = APIRouter(include_in_schema=False)

    def answered(
        request: Request, reading: Reading, content: object, more: Mapping[str, str] = MappingProxyType({})
    ) -> Response:
        headers = {
            "ETag": reading.etag,
            "Cache-Control": f"max-age={FOUR_HOURS}",
            "Access-Control-Allow-Origin": "*",
            **more,
        }
        if request.headers.get("if-none-match") == reading.etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(
            limited(json.dumps(content, separators=(",", ":"))),
            media_type="application/json",
            headers=headers,
        )

    @router.api_route("/status", methods=READ)
    def status() -> Response:
        return Response("OK", media_type="text/plain")

    @router.api_route("/aggregates_by/{prefix}/channels/", methods=READ)
    def channels(request: Request, prefix: str) -> Response:
        with source.reading() as reading:
            found = old_service.channels(reading.cubes, old_service.view_of(prefix))
            return answered(request, reading, found)

    @router.api_route("/aggregates_by/{prefix}/channels/{channel}/dates/", methods=READ)
    def dates(request: Request, prefix: str, channel: str) -> Response:
        with source.reading() as reading:
            found = old_service.dates(reading.cubes, old_service.view_of(prefix), channel)
            return answered(request, reading, found)

    @router.api_route("/aggregates_by/{prefix}/channels/{channel}/", methods=READ)
    def aggregates(request: Request, prefix: str, channel: str) -> Response:
        with source.reading() as reading:
            found = old_service.aggregates(
                reading.cubes,
                reading.index,
                old_service.view_of(prefix),
                channel,
                request.query_params.multi_items(),
                source.thresholds,
                ANSWER_MAX_BYTES,
            )
            left_out = {
                LEFT_OUT_HEADER: str(found.labels_left_out),
                "Access-Control-Expose-Headers": LEFT_OUT_HEADER,
            }
            return answered(request, reading, asdict(found.answer), left_out if found.labels_left_out else {})

    @router.api_route("/filters/", methods=READ)
    def filters(request: Request, channel: str = "", version: str = "") -> Response:
        with source.reading() as reading:
            return answered(request, reading, old_service.filters(reading.cubes, channel, version))

    return router
