"""The page: one HTML file at /, what belongs to it below /assets/. Without a build step; without third parties."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "page"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    if not (FOLDER / "index.html").is_file():
        return PlainTextResponse("There is no page here; the API is at /api/v1, its schema at /openapi.json.")
    return FileResponse(FOLDER / "index.html", headers={"Cache-Control": "no-cache"})


def add_to(app: FastAPI) -> None:
    app.include_router(router)
    assets = StaticFiles(directory=FOLDER / "assets", check_dir=False)
    app.mount("/assets", GZipMiddleware(assets, minimum_size=500, compresslevel=5))
