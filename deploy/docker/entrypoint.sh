#!/bin/sh
# Gives this replica a data folder of its own, then becomes `headwater run`.
#
# `docker compose up --scale node=3` gives all replicas the same volume, and two nodes must never use one folder. So each
# takes the lowest numbered folder that nobody holds (flock, kept until the process ends however it ends): node-1, node-2 …
# A replica that is made anew, even after `docker compose down`, goes on with a folder that was left. A folder that nobody
# takes again (scaled down) keeps what it has; scale up once more, and it is delivered.
#
# The first replica makes the secrets that are missing. They lie beside the folders: all replicas need the same.
set -eu
root=${HEADWATER_ROOT:-/var/lib/headwater}
most=${HEADWATER_REPLICAS_MAX:-32}
umask 077

mkdir -p "$root/secrets"
exec 8>"$root/secrets/lock"
flock 8
for name in web cluster admin; do
    if [ ! -s "$root/secrets/$name" ]; then
        headwater keys new - >"$root/secrets/$name.new"
        mv "$root/secrets/$name.new" "$root/secrets/$name"
    fi
done
exec 8>&-

number=1
while [ "$number" -le "$most" ]; do
    exec 9>"$root/node-$number.held"
    if flock -n 9; then
        export HEADWATER_NODE="node-$number" HEADWATER_SECRETS="$root/secrets"
        mkdir -p "$root/node-$number"
        ln -sfn "$root/node-$number" "${HEADWATER_DATA:-/tmp/headwater-data}"
        echo "entrypoint: this is node-$number"
        exec headwater run --config "${HEADWATER_CONFIG:-/etc/headwater/headwater.yaml}" --data "$root/node-$number"
    fi
    number=$((number + 1))
done
echo "entrypoint: all of node-1 to node-$most in $root are held; HEADWATER_REPLICAS_MAX allows more" >&2
exit 2
