"""Loading settings: precedence, refused values, and the report of problems."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.setting_rules import Above, SecretText
from runtime.settings import Address, Seconds, Section, SettingsError, keys, load, parse_seconds


class Edge(Section):
    listen: Address = Address.parse("127.0.0.1:8080")
    head_timeout_s: Seconds = 10
    max_headers: Annotated[int, Above(0)] = 128
    names: tuple[str, ...] = ()


class Store(Section):
    token: SecretText = SecretText("")
    url: str = "nats://127.0.0.1:4222"


class Program(Section):
    level: str = "info"
    edge: Edge = Edge()
    store: Store = Store()


def read(text: str, tmp_path: Path, **environ: str) -> Program:
    file = tmp_path / "program.toml"
    file.write_text(text)
    return load(
        Program, file, "PROGRAM", environ=environ, aliases={"URL": "store.url", "U": "store.url"}
    )


def problems(text: str, tmp_path: Path, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(text, tmp_path, **environ)
    assert str(caught.value).splitlines() == caught.value.problems
    return caught.value.problems


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    settings = read(
        'level = "debug"\n[edge]\nmax_headers = 7\nhead_timeout_s = "500ms"',
        tmp_path,
        PROGRAM_EDGE__MAX_HEADERS="9",
        UNRELATED="1",
    )
    assert settings.level == "debug"
    assert settings.edge.max_headers == 9
    assert settings.edge.head_timeout_s == 0.5
    assert settings.edge.listen == Address("127.0.0.1", 8080)


def test_what_must_be_set_is_named_also_when_its_whole_section_is_missing() -> None:
    class Server(Section):
        host: str
        port: int

    class Client(Section):
        server: Server

    with pytest.raises(SettingsError) as caught:
        load(Client, None, "CLIENT", environ={})
    assert caught.value.problems == ["server.host: must be set", "server.port: must be set"]


def test_no_file_and_no_environment_give_the_defaults() -> None:
    assert load(Program, None, "PROGRAM", environ={}) == Program()


def test_every_mistake_is_reported_at_once_by_its_name(tmp_path: Path) -> None:
    text = 'levle = "x"\n[edge]\nmax_headers = 0\nlisten = "nowhere"\n[stroe]\nurl = ""'
    found = problems(text, tmp_path, PROGRAM_EDGE__HEAD_TIMEOUT_S="soon", PROGRAM_EDGE__HED="1")
    assert [line.split(":")[0] for line in found] == [
        "PROGRAM_EDGE__HED",
        "edge.listen",
        "edge.head_timeout_s",
        "edge.max_headers",
        "levle",
        "stroe",
    ]
    assert found[0] == "PROGRAM_EDGE__HED: no such setting"
    assert found[2].endswith("(from PROGRAM_EDGE__HEAD_TIMEOUT_S)")


def test_a_mistake_in_the_environment_alone_is_an_error_too(tmp_path: Path) -> None:
    assert problems("", tmp_path, PROGRAM_LEVLE="x") == ["PROGRAM_LEVLE: no such setting"]


def test_a_value_where_a_section_belongs_is_an_error_by_name(tmp_path: Path) -> None:
    assert [line.split(":")[0] for line in problems("edge = 1", tmp_path)] == ["edge"]


def test_a_file_that_is_not_there_or_not_toml_is_one_line_with_its_name(tmp_path: Path) -> None:
    assert problems("level =", tmp_path)[0].startswith(f"{tmp_path / 'program.toml'}: not TOML")
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file"):
        load(Program, tmp_path / "absent.toml", "PROGRAM", environ={})


def test_what_kubernetes_injects_for_a_service_of_our_name_is_no_setting(tmp_path: Path) -> None:
    read(
        "",
        tmp_path,
        PROGRAM_SERVICE_HOST="10.0.0.1",
        PROGRAM_SERVICE_PORT_HTTP="80",
        PROGRAM_PORT="tcp://10.0.0.1:80",
        PROGRAM_METRICS_PORT_80_TCP_ADDR="10.0.0.1",
    )
    assert problems("", tmp_path, PROGRAM_PORT="80") == ["PROGRAM_PORT: no such setting"]


def test_of_two_aliases_the_first_that_is_set_counts_and_our_own_name_wins(tmp_path: Path) -> None:
    assert read("[store]\nurl = 'f'", tmp_path, URL="a", U="b").store.url == "a"
    assert read("[store]\nurl = 'f'", tmp_path, URL="", U="b").store.url == "b"
    assert read("", tmp_path, URL="a", PROGRAM_STORE__URL="own").store.url == "own"


def test_lists_come_from_the_environment_as_words_or_as_json(tmp_path: Path) -> None:
    assert read("", tmp_path, PROGRAM_EDGE__NAMES="a, b").edge.names == ("a", "b")
    assert read("", tmp_path, PROGRAM_EDGE__NAMES='["a,b"]').edge.names == ("a,b",)


def test_a_secret_shows_in_no_report_and_no_repr(tmp_path: Path) -> None:
    settings = read("[store]\ntoken = 'hunter2'", tmp_path)
    assert "hunter2" not in repr(settings)
    assert settings.store.token.get_secret_value() == "hunter2"
    assert "hunter2" not in "".join(problems("[store]\ntoken = ['hunter2']", tmp_path))


def test_the_dotted_names_of_a_tree_are_known() -> None:
    assert list(keys(Program)) == [
        "level",
        "edge.listen",
        "edge.head_timeout_s",
        "edge.max_headers",
        "edge.names",
        "store.token",
        "store.url",
    ]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (5, 5.0),
        ("0.5", 0.5),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1.5m", 90.0),
        ("PT10S", 10.0),
        ("PT1H30M", 5400.0),
        ("P1DT0.5S", 86400.5),
        ("0", 0.0),
    ],
)
def test_durations_are_written_in_four_ways(written: object, seconds: float) -> None:
    assert parse_seconds(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "soon", "10 s", "-1", -1, "nan", "inf", "P", "PT", "P1DT", "10x", True, None]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_seconds(written)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8080", "[::1]:80", "unix:/run/a b.sock", "host:0", "a_b.example.com:65535"]
)
def test_an_address_reads_back_what_it_writes(text: str) -> None:
    assert str(Address.parse(text)) == text
    assert Address.parse(text).is_unix == text.startswith("unix:")


@pytest.mark.parametrize(
    "text",
    [
        *("", "8080", ":8080", "host", "host:", "host:65536", "host:-1", "host:\u0661"),
        *("::1:80", "[host]:80", "unix:", "http://host:80", "a b:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Address.parse(text)


@given(st.text(max_size=20))
def test_no_text_breaks_the_readers(text: str) -> None:
    for read_text in (parse_seconds, Address.parse):
        with suppress(ValueError):
            assert read_text(text) is not None
