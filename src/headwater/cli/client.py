"""Talking with a running node: HTTP over ``run/ops.sock`` of its data folder."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click
import msgspec

from headwater.kit.ask import revive, short_path
from headwater.kit.errors import Unavailable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TIMEOUT_S = 90.0
DATA_DEFAULT = "headwater-data"


def files(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shell completes names of files here."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


def folders(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The shell completes names of folders here."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="dir")]


data_option = click.option(
    "--data",
    envvar="HEADWATER_DATA",
    default=DATA_DEFAULT,
    show_default=True,
    metavar="DIR",
    shell_complete=folders,
    help="The node's data folder. [env: HEADWATER_DATA]",
)
config_option = click.option(
    "--config",
    "config_path",
    envvar="HEADWATER_CONFIG",
    default="headwater.yaml",
    show_default=True,
    metavar="FILE",
    shell_complete=files,
    help="The configuration. [env: HEADWATER_CONFIG]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path
        self.timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout_s)
        with short_path(self.path) as short:
            self.sock.connect(short)


class Node:
    """The node that runs on a data folder. Unavailable when none answers there."""

    def __init__(self, data: str) -> None:
        self.data = os.path.abspath(data)
        self.silent = ""
        """Nodes of the cluster that did not say their part of the last answer."""

    def get(self, path: str, *, timeout_s: float = TIMEOUT_S, **query: object) -> Any:
        """The JSON of a route."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(given)}" if given else path, timeout_s=timeout_s)

    def post(self, path: str, body: object, *, timeout_s: float = TIMEOUT_S) -> Any:
        """The JSON that a route answers to a JSON body."""
        return self.request("POST", path, msgspec.json.encode(body), timeout_s=timeout_s)

    def request(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """One request; an error of the node is raised with its own class."""
        connection = UnixConnection(f"{self.data}/run/ops.sock", timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            data = reply.read()
            self.silent = reply.getheader("Headwater-Silent", "")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"no node answers on {self.data}",
                code="no_node",
                help="is it running? name its data folder with --data DIR",
            ) from error
        finally:
            connection.close()
        told = decoded(data, reply.status)
        if reply.status >= 400 and isinstance(told, dict) and "error" in told:
            raise revive(told["error"])
        return told


def data_words(data: str) -> str:
    """`` --data DIR`` for a command that is proposed, so that it works from any folder; nothing for the default."""
    if os.path.abspath(data) == os.path.abspath(DATA_DEFAULT):
        return ""
    return f" --data {shlex.quote(os.path.abspath(data))}"


def decoded(data: bytes, status: int) -> Any:
    """The JSON of an answer."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Unavailable(
            f"the node answered {status} with something else than JSON", code="no_json"
        ) from error


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")
