#!/usr/bin/env bash
# nghttp and h2load. See python_sdks.py for what it reads and prints.
set -u
authorization="authorization: Bearer $API_KEY"

attempt() { # name, wanted text, command
	local name=$1 wanted=$2 got
	shift 2
	if got=$(timeout 60 "$@" 2>&1) && grep -q "$wanted" <<<"$got"; then
		echo "PASS nghttp2: $name"
	else
		echo "FAIL nghttp2: $name: $(tail -n 3 <<<"$got" | tr '\n' ' ')"
	fi
}

attempt "events" 'data: ' nghttp -H "$authorization" "$BASE_URL/f/demo/sse?events=5&interval_ms=50"
attempt "windows of one byte" '"status":"OK"' nghttp -w 1 -W 1 "$BASE_URL/health"
attempt "padding and a small table" '"status":"OK"' nghttp -b 200 -c 100 "$BASE_URL/health"
attempt "1,000 calls on 4 connections" '1000 succeeded, 0 failed' \
	h2load -n 1000 -c 4 -m 20 -H "$authorization" "$BASE_URL/f/demo/health"
attempt "1,000 calls over TLS" '1000 succeeded, 0 failed' \
	h2load -n 1000 -c 4 -m 20 -H "$authorization" "$TLS_URL/f/demo/health"
