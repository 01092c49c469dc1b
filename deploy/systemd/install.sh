#!/bin/sh
# Install program, user and units:
#
#   install.sh gateway HOST    a gateway and its NATS server, which others reach at HOST
#   install.sh worker NAME     the worker agent worker-agent@NAME
#
# Files in /etc/invocation-gateway that exist are left as they are. DESTDIR=DIR puts the files below DIR,
# and installs nothing else.
set -eu

usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}
settings=$root/etc/invocation-gateway
install -d -m 755 "$settings" "$root/etc/systemd/system" "$root/etc/sysusers.d"

settings_file() { # FILE NAME
    [ -e "$settings/$2" ] || install -m 600 "$here/$1" "$settings/$2"
}

case $1 in
gateway)
    if [ ! -e "$settings/gateway.env" ]; then
        settings_file gateway.env gateway.env
        secret=nvboot-$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
        echo "GATEWAY_CONTROL__BOOTSTRAP_SECRET=$secret" >>"$settings/gateway.env"
    fi
    settings_file nats.env nats.env
    sed -i "s/gateway-1\.example\.com/$2/" "$settings/gateway.env" "$settings/nats.env"
    units="invocation-nats.service invocation-gateway.service"
    ;;
worker)
    settings_file worker.env "worker-$2.env"
    units=worker-agent@.service
    ;;
*) usage ;;
esac
install -m 644 "$here/sysusers.conf" "$root/etc/sysusers.d/invocation-gateway.conf"
for unit in $units; do install -m 644 "$here/$unit" "$root/etc/systemd/system/$unit"; done

if [ -z "$root" ]; then
    python3 -m venv /opt/invocation-gateway
    /opt/invocation-gateway/bin/pip install "$here/../.."
    systemd-sysusers
    systemctl daemon-reload
fi
