#!/usr/bin/env bash
# curl with each way of HTTP/2. See python_sdks.py for what it reads and prints.
set -u
authorization="Authorization: Bearer $API_KEY"
body=$(mktemp)
trap 'rm -f "$body"' EXIT
head -c 3000000 /dev/urandom > "$body"

attempt() { # name, wanted version, arguments
	local name=$1 version=$2 got
	shift 2
	got=$(curl -sS --max-time 60 -H "$authorization" --data-binary "@$body" -o "$body.back" \
		-w '%{http_code} %{http_version}' "$@" 2>&1)
	if [ "$got" = "200 $version" ] && cmp -s "$body" "$body.back"; then
		echo "PASS curl: $name"
	else
		echo "FAIL curl: $name: $got"
	fi
	rm -f "$body.back"
}

attempt "HTTP/2 with prior knowledge" 2 --http2-prior-knowledge "$BASE_URL/f/demo/echo"
attempt "HTTP/2 by upgrade, which is not taken" 1.1 --http2 "$BASE_URL/f/demo/echo"
attempt "HTTP/2 over TLS" 2 --cacert "$TLS_AUTHORITY" "$TLS_URL/f/demo/echo"
attempt "HTTP/1.1 over TLS" 1.1 --http1.1 --cacert "$TLS_AUTHORITY" "$TLS_URL/f/demo/echo"
