"""Clips in parts: Safari plays a video only from a server that answers requests for ranges of its bytes."""

import re

from starlette.datastructures import Headers
from starlette.responses import Response

_SINGLE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


def in_parts(content: bytes, media_type: str, asked: Headers) -> Response:
    """Answer with the range of the content that was asked for, or with all of it.

    Starlette does this for files only. Several ranges, other units and what makes no sense get all of it, as RFC 9110
    allows; so does If-Range, since clips have no validators.

    Args:
        content: a clip.
        media_type: of the clip.
        asked: the headers of the request.
    """
    size, headers = len(content), {"Accept-Ranges": "bytes"}
    found = None if "if-range" in asked else _SINGLE.fullmatch(asked.get("range", ""))
    first, last = found.groups() if found else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return Response(content, media_type=media_type, headers=headers)
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(content[start:end], 206, media_type=media_type, headers=headers)
