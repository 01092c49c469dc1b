import pytest

from gateway.errors import BadRequest
from gateway.routing.call_head import CallHead, call_head_reader, take_token
from http1.stream import Headers, Request

F = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
V = "11111111-2222-4333-8444-555555555555"
read = call_head_reader(b".Invocation.example.com")
read_any = call_head_reader(b"")


def request(authority: str, *headers: tuple[bytes, bytes]) -> Request:
    fields: Headers = [(b"host", authority.encode()), (b"accept", b"*/*"), *headers]
    return Request(b"POST", b"/path?q=1", authority.encode(), fields, 0, 0.0)


@pytest.mark.parametrize(
    ("authority", "function_id", "version_id"),
    [
        (f"{F}.invocation.example.com", F, None),
        (f"{F.upper()}.INVOCATION.Example.com.:8080", F, None),
        (f"{V}.{F}.invocation.example.com", F, V),
        (f"{V}.{F}.invocation.example.com:443", F, V),
    ],
)
def test_a_function_host_names_function_and_version(
    authority: str, function_id: str, version_id: str | None
) -> None:
    for _ in range(2):
        head = read(request(authority))
        assert head is not None
        assert (head.function_id, head.version_id) == (function_id, version_id)


@pytest.mark.parametrize(
    "authority",
    [
        "api.example.com",
        "invocation.example.com",
        f"{F}.other.example.com",
        f"{F}-invocation.example.com",
        f"x.{F}.invocation.example.com",
        f"{F[:-1]}.invocation.example.com",
        "127.0.0.1:8080",
        "[::1]:8080",
    ],
)
def test_any_other_host_belongs_to_the_path_routes(authority: str) -> None:
    for _ in range(2):
        assert read(request(authority)) is None


def test_without_a_suffix_any_domain_will_do() -> None:
    head = read_any(request(f"{F}.localhost:8080"))
    assert head is not None
    assert head.function_id == F


def test_no_host_at_all_belongs_to_the_path_routes() -> None:
    """HTTP/1.0 health checks send none."""
    assert read(request("")) is None


@pytest.mark.parametrize("authority", ["a b", "user@host", "host/path", "host:99999", "[::1"])
def test_an_invalid_host_is_a_bad_request(authority: str) -> None:
    for _ in range(2):
        with pytest.raises(BadRequest):
            read(request(authority))


def test_the_routing_headers_come_before_the_host() -> None:
    head = read(
        request(
            f"{V}.invocation.example.com",
            (b"function-id", F.upper().encode()),
            (b"function-version-id", V.encode()),
        )
    )
    assert head is not None
    assert (head.function_id, head.version_id) == (F, V)


HOST_OF_F = f"{F}.invocation.example.com"
OTHER = "22222222-2222-4333-8444-555555555555"
NAMES_F = (b"function-id", F.encode())


@pytest.mark.parametrize("value", [b"v1", V[:-1].encode(), b"", b"{" + V.encode() + b"}"])
@pytest.mark.parametrize(
    ("authority", "headers"),
    [("api", [NAMES_F]), (HOST_OF_F, []), (f"{V}.{HOST_OF_F}", []), (HOST_OF_F, [NAMES_F])],
)
def test_a_malformed_version_header_is_refused(
    authority: str, headers: Headers, value: bytes
) -> None:
    """Else a misspelt version id would run any version."""
    with pytest.raises(BadRequest, match="not a UUID"):
        read(request(authority, *headers, (b"function-version-id", value)))


@pytest.mark.parametrize("headers", [[], [NAMES_F]])
@pytest.mark.parametrize("authority", [HOST_OF_F, f"{V}.{HOST_OF_F}"])
def test_a_version_header_holds_for_the_function_that_the_host_names(
    authority: str, headers: Headers
) -> None:
    head = read(request(authority, *headers, (b"function-version-id", V.upper().encode())))
    assert head is not None
    assert (head.function_id, head.version_id) == (F, V)


@pytest.mark.parametrize("headers", [[], [NAMES_F]])
def test_a_version_header_that_contradicts_the_host_is_refused(headers: Headers) -> None:
    with pytest.raises(BadRequest, match="another version"):
        read(request(f"{OTHER}.{HOST_OF_F}", *headers, (b"function-version-id", V.encode())))


def test_the_version_in_the_host_holds_although_a_header_repeats_the_function() -> None:
    head = read(request(f"{V}.{HOST_OF_F}", NAMES_F))
    assert head is not None
    assert (head.function_id, head.version_id) == (F, V)


def test_the_host_says_nothing_about_another_function() -> None:
    head = read(request(f"{V}.{OTHER}.invocation.example.com", NAMES_F))
    assert head is not None
    assert (head.function_id, head.version_id) == (F, None)


def test_a_malformed_function_header_leaves_it_to_the_host() -> None:
    bad = (b"function-id", b"none")
    assert read(request("api.example.com", bad)) is None
    head = read(request(f"{F}.invocation.example.com", bad))
    assert head is not None
    assert head.function_id == F


def test_a_version_header_alone_names_nothing() -> None:
    assert read(request("api.example.com", (b"function-version-id", V.encode()))) is None


@pytest.mark.parametrize(
    "name",
    [b"function-id", b"function-version-id", b"authorization", b"nvcf-poll-seconds", b"origin"],
)
def test_a_header_that_may_count_once_is_refused_twice(name: bytes) -> None:
    with pytest.raises(BadRequest, match="more than once"):
        read(request(f"{F}.invocation.example.com", (name, b"1"), (name, b"1")))


def test_the_head_carries_what_admission_will_read() -> None:
    head = read(
        request(
            f"{F}.invocation.example.com",
            (b"authorization", b"Bearer x"),
            (b"nvcf-poll-seconds", b"5"),
        )
    )
    assert head is not None
    assert (head.authorization, head.poll_seconds) == (b"Bearer x", b"5")


def test_remembered_hosts_are_bounded_and_forgetting_changes_nothing() -> None:
    for n in range(5000):
        function_id = f"6f9619ff-8b86-4011-b42d-{n:012d}"
        head = read(request(f"{function_id}.invocation.example.com"))
        assert head is not None
        assert head.function_id == function_id
    cells = [cell.cell_contents for cell in read.__closure__ or ()]
    assert sum(len(cell) for cell in cells if isinstance(cell, dict)) <= 4096


@pytest.mark.parametrize(
    ("target", "token", "left"),
    [
        (b"/?nvcf-token=a.b-c_d", b"a.b-c_d", b"/"),
        (b"/x?a=1&nvcf-token=t", b"t", b"/x?a=1"),
        (b"/x?nvcf-token=t&a=1&&b", b"t", b"/x?a=1&&b"),
        (b"/x?a=nvcf-token=t", None, b"/x?a=nvcf-token=t"),
        (b"/nvcf-token=t", None, b"/nvcf-token=t"),
        (b"/x?NVCF-TOKEN=t", None, b"/x?NVCF-TOKEN=t"),
    ],
)
def test_a_token_is_taken_out_of_the_query(target: bytes, token: bytes | None, left: bytes) -> None:
    linked = Request(b"GET", target, b"f", [], 0, 0.0)
    head = take_token(linked, CallHead(F, None, None, None))
    assert head.is_linked == (token is not None)
    assert head.authorization == (None if token is None else b"Bearer " + token)
    assert linked.target == left


def test_a_second_credential_is_refused_and_is_not_left_in_the_target() -> None:
    for target, authorization in (
        (b"/?nvcf-token=a&nvcf-token=a", None),
        (b"/?nvcf-token=a", b"Bearer b"),
    ):
        linked = Request(b"GET", target, b"f", [], 0, 0.0)
        with pytest.raises(BadRequest, match="more than one credential"):
            take_token(linked, CallHead(F, None, authorization, None))
        assert linked.target == b"/"
