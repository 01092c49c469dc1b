import os
import subprocess
import sys

import pytest

from loadtests.proc import (
    Memory,
    Process,
    ProcessesChangedError,
    Role,
    Stat,
    cpu_between,
    descendants,
    environment_of,
    parse_rollup,
    parse_stat,
    port_of,
    role_of,
)

STAT = (
    "4242 (worker (x) y) S 4200 4242 4242 0 -1 4194560 9 0 0 0 "
    "150 25 7 8 20 0 3 0 12345 99999 512 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0\n"
)


def test_the_stat_line_of_a_command_with_blanks_and_parentheses() -> None:
    assert parse_stat(STAT) == Stat(
        pid=4242, parent=4200, state="S", cpu_ticks=175, rss_pages=512, start_ticks=12345
    )


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("/venv/bin/nats-server -c nats.conf", Role.BROKER),
        ("/usr/bin/redis-server 127.0.0.1:6379", Role.BROKER),
        ("/venv/bin/python /venv/bin/gateway serve --config gateway.toml", Role.FRONT),
        ("/venv/bin/python -m gateway serve", Role.FRONT),
        ("/venv/bin/python -m gateway dev --port 0", Role.OTHER),
        ("/venv/bin/python /venv/bin/worker-agent --config worker.toml", Role.AGENT),
        ("/venv/bin/python -m worker_agent", Role.AGENT),
        ("/venv/bin/python -m loadtests.peers.inference --port 1", Role.INFERENCE),
        ("/venv/bin/python -m loadtests.peers.proxy --port 1", Role.FRONT),
        ("/usr/sbin/nginx -p /tmp/x", Role.FRONT),
        ("", Role.OTHER),
    ],
)
def test_roles_by_command_line(command: str, role: Role) -> None:
    assert role_of(command.split()) is role


def test_a_command_named_in_an_argument_does_not_count() -> None:
    inner = "python -m loadtests.peers.inference --port {port}"
    argv = ["python", "-m", "gateway", "dev", "--inference-command", inner]
    assert role_of(argv) is Role.OTHER


def test_programs_that_change_their_title_are_recognised() -> None:
    assert role_of(["nginx: worker process"]) is Role.FRONT
    assert role_of(["/venv/_binaries/linux-x86_64/valkey-server 127.0.0.1:1"]) is Role.BROKER


def test_the_port_is_read_from_the_command_line() -> None:
    assert port_of(["python", "--port", "8123"]) == 8123
    with pytest.raises(ValueError, match="--port"):
        port_of(["python"])


def test_descendants_are_found_parents_first_and_others_left_out() -> None:
    def stat(pid: int, parent: int) -> Stat:
        return Stat(pid, parent, "S", 0, 0)

    stats = [stat(9, 5), stat(5, 3), stat(4, 1), stat(3, 1), stat(8, 4)]

    assert [each.pid for each in descendants(stats, [3])] == [3, 5, 9]
    assert descendants(stats, [77]) == []


def process(pid: int, role: Role, cpu_s: float) -> Process:
    return Process(pid, role, ("x",), cpu_s, 0)


def test_cpu_is_summed_by_role() -> None:
    before = [
        process(1, Role.FRONT, 1.0),
        process(2, Role.FRONT, 2.0),
        process(3, Role.BROKER, 5.0),
    ]
    after = [
        process(1, Role.FRONT, 1.5),
        process(2, Role.FRONT, 4.0),
        process(3, Role.BROKER, 5.25),
    ]

    assert cpu_between(before, after) == {Role.FRONT: 2.5, Role.BROKER: 0.25}


def test_a_process_that_was_replaced_is_no_measurement() -> None:
    before = [process(1, Role.FRONT, 1.0)]
    with pytest.raises(ProcessesChangedError):
        cpu_between(before, [process(7, Role.FRONT, 1.5)])


def test_a_passing_process_without_a_role_does_not_matter() -> None:
    before = [process(1, Role.FRONT, 1.0), process(2, Role.OTHER, 1.0)]
    assert cpu_between(before, [process(1, Role.FRONT, 2.0)]) == {Role.FRONT: 1.0}


def test_memory_is_that_of_the_whole_process() -> None:
    text = (
        "55d0c0000000-7ffd1c5f3000 ---p 00000000 00:00 0    [rollup]\n"
        "Rss:               66460 kB\n"
        "Pss:               48120 kB\n"
        "Pss_Dirty:         40000 kB\n"
    )
    assert parse_rollup(text) == Memory(rss=66_460 * 1024, pss=48_120 * 1024)


def test_the_environment_of_a_process_is_what_it_was_started_with() -> None:
    env = {"PATH": os.environ["PATH"], "GATEWAY_X": "a=b,ü", "EMPTY": ""}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe) as child:
        try:
            # Popen may return before the kernel has set the new environment.
            assert child.stdout is not None
            assert child.stdout.readline()
            assert environment_of(child.pid) == env
        finally:
            child.kill()
