"""How the libraries of Hugging Face are used: without half a minute of retries, and quietly."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

_CONNECT_TIMEOUT_SECONDS = 3.0


@contextmanager
def offline_where_unreachable() -> Iterator[bool]:
    """Where the hub cannot be reached, its libraries look into their caches only.

    Yields:
        Whether they are offline now, by this or by the user's `HF_HUB_OFFLINE`.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    offline = before or not _hub_reachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = offline
    try:
        yield offline
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the libraries' chatter out of our own display while a model is loaded or saved.

    transformers shows a bar for weights that load in a blink, and a table of every weight that is
    missing; peft asks transformers by a name that is deprecated there.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _hub_reachable(endpoint: str) -> bool:
    """Whether something answers at the hub's address; behind a proxy taken for granted."""
    url = urlsplit(endpoint)
    if getproxies().get(url.scheme) or getproxies().get("all"):
        return True
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        with socket.create_connection((url.hostname or "", port), _CONNECT_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False
