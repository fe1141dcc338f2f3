"""The HTTP API and the page. Imports fastapi, which the extra `serve` brings; nothing below imports this room."""
