"""Every combination of what decides how a response ends."""

import pytest

from http1.server.framing import CHUNKED, NO_BODY, SIZED, TO_CLOSE, Framing, frame_response

L = b"content-length: 5\r\n"
C = b"connection: close\r\n"
K = b"connection: keep-alive\r\n"
T = b"transfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("status", "body_bytes", "to_head", "to_http_1_0", "closes", "expected"),
    [
        (200, 5, False, False, False, (SIZED, L, False)),
        (200, 5, False, False, True, (SIZED, L + C, True)),
        (200, None, False, False, False, (CHUNKED, T, False)),
        (200, None, False, False, True, (CHUNKED, T + C, True)),
        (200, 5, False, True, False, (SIZED, L + K, False)),
        (200, 5, False, True, True, (SIZED, L + C, True)),
        (200, None, False, True, False, (TO_CLOSE, C, True)),
        (204, 5, False, False, False, (NO_BODY, b"", False)),
        (204, None, False, True, False, (NO_BODY, K, False)),
        (304, 5, False, False, False, (NO_BODY, L, False)),
        (304, None, False, False, False, (NO_BODY, b"", False)),
        (200, 5, True, False, False, (NO_BODY, L, False)),
        (200, None, True, False, False, (NO_BODY, b"", False)),
        (200, None, True, True, True, (NO_BODY, C, True)),
    ],
)
def test_the_end_of_a_response(
    status: int,
    body_bytes: int | None,
    to_head: bool,
    to_http_1_0: bool,
    closes: bool,
    expected: tuple[Framing, bytes, bool],
) -> None:
    framed = frame_response(
        status, body_bytes, to_head=to_head, to_http_1_0=to_http_1_0, closes=closes
    )
    assert framed == expected
