"""Finding, reading and checking the configuration of a node."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from headwater.config import load
from headwater.config.load import Document
from headwater.kit.errors import Misconfigured
from headwater.node.settings import ReadText, Settings, check_cluster_secrets, check_secrets, secret_reader

CONFIGURATION_DEFAULT = "headwater.yaml"
DATA_DEFAULT = "headwater-data"


class Configuration(NamedTuple):
    """A configuration file and what it says."""

    path: str
    document: Document
    settings: Settings


def read(
    path: str,
    data: str,
    environment: Mapping[str, str],
    *,
    before_secrets: Callable[[Settings], object] = lambda settings: None,
) -> Configuration:
    """The checked settings of a file. Misconfigured says what is wrong, where.

    ``before_secrets`` is called before files of secrets are read; the first start makes them there.
    """
    return parse(text_of(path), path, environment, secret_reader(data), before_secrets)


def text_of(path: str) -> str:
    """The text of a configuration file. Misconfigured where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(load.BYTES_MAX + 1)
    except OSError as error:
        raise Misconfigured(
            f"cannot read {path}: {error.strerror}", code="configuration", help="see --config"
        ) from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not UTF-8 text", code="configuration") from error


def parse(
    text: str,
    path: str,
    environment: Mapping[str, str],
    read_secret: ReadText,
    before_secrets: Callable[[Settings], object] = lambda settings: None,
) -> Configuration:
    """The checked settings of a file's text. Misconfigured as ``read``."""
    document = load.read(text, os.path.basename(path), environment)
    settings = load.convert(document, document.data, Settings)
    before_secrets(settings)
    check_secrets(settings.keys, read_secret, document)
    check_cluster_secrets(settings.cluster, read_secret, document)
    return Configuration(os.path.abspath(path), document, settings)
