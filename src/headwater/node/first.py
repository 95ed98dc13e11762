"""The first start: a configuration that teaches, and a write key, so that ``headwater run`` needs nothing.

The key's secret lies in the data folder, readable by its owner only; the configuration refers to it by name, so the
file can be shown to anyone.
"""

from __future__ import annotations

import os

from headwater.kit.disk import Disk, write_whole
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import Rng

KEY_ID = "web"
SECRET_BYTES = 24

CONFIGURATION = """\
# Headwater. `headwater config explain KEY` says what a setting means and where its value came from;
# docs/configuration.md has them all. Relative paths are below the data folder.
# Text may hold ${env.NAME} or ${env.NAME|default}.

collect:
  listen: "127.0.0.1:8420"     # where events come in; "0.0.0.0:8420" opens it to the network
  workers: 1                   # processes that share this port, about one per core that collecting may take

ops:
  listen: "127.0.0.1:8421"     # health, metrics, SQL, the demo page; other addresses than loopback need a token

keys:                          # who may send; changes are taken over by SIGHUP, without a restart
  - id: web                    # the name of the key and of its stream of events, seen in `key_id`
    secret_file: keys/web.secret
    origins: ["*"]             # pages that may send with it; for production: ["https://www.example.com"]
    ack: disk                  # 2xx means: on disk, synced. `memory` answers sooner and can lose the last moment

destinations:                  # where events go; SIGHUP here too
  warehouse:
    type: duckdb
    path: warehouse.duckdb

# Behind a load balancer: fail /ping so many seconds before the door closes.
# shutdown_delay: 20
"""


def write_configuration(path: str, disk: Disk) -> None:
    """The default configuration at ``path``; never over an existing file."""
    if disk.exists(path):
        return
    write_whole(disk, os.path.abspath(path), CONFIGURATION.encode())


def secret_path(data: str, key_id: str) -> str:
    """Where a generated secret lies."""
    return f"{data}/keys/{key_id}.secret"


def new_secret(rng: Rng) -> str:
    """What a client sends."""
    return f"hw_{rng.token(SECRET_BYTES)}"


def write_secret(data: str, key_id: str, rng: Rng) -> str:
    """A new secret for a key, readable by its owner only; its path. Misconfigured where there is one already."""
    path = secret_path(data, key_id)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Misconfigured(
            f"{path} exists already",
            code="secret_exists",
            help=f"`headwater keys rotate {key_id}` gives it a new one",
        ) from None
    try:
        os.write(file, f"{new_secret(rng)}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
    return path


def write_missing_secrets(data: str, secret_files: dict[str, str], rng: Rng) -> list[str]:
    """Make the generated secrets (``keys/<id>.secret``) that a new data folder lacks; the ids of those keys."""
    made = []
    for key_id, path in secret_files.items():
        if path == f"keys/{key_id}.secret" and not os.path.exists(secret_path(data, key_id)):
            write_secret(data, key_id, rng)
            made.append(key_id)
    return made
