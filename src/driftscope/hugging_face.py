"""How the libraries of Hugging Face are used: without half a minute of retries, and quietly."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from driftscope.errors import ModelError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CONNECT_TIMEOUT_SECONDS = 3.0
_STDERR = 2


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


def file_of(place: str, file: str, *, fetches: bool = True) -> Path | None:
    """A file of a folder, or else of a repository; None where there is none.

    That is in the cache, or is fetched where this is wanted and possible.
    """
    from huggingface_hub import hf_hub_download

    if (folder := Path(place)).is_dir():
        return folder / file if (folder / file).exists() else None
    try:
        return Path(hf_hub_download(place, file, local_files_only=not fetches))
    except (OSError, ValueError):  # not there, not to be reached, or no name of a repository
        return None


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


@contextmanager
def quiet_panics() -> Iterator[None]:
    """Keeps what Rust writes of a panic from the terminal: the sentence that follows says it.

    Rust writes to the process's own stderr, past Python's. Where there is none, nothing is done.
    """
    if sys.stderr is not None:  # a program without a console has none
        sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)


def commit_card(repo_id: str, section: str, files: Mapping[str, str]) -> str:
    """Puts a section into a model's README on the hub, beside files, in one commit.

    A section that an earlier call has put there is replaced, all else stays.

    Args:
        repo_id: of the model, such as `me/my-clip`.
        section: Markdown.
        files: path in the repository -> text.

    Returns:
        The commit's address.

    Raises:
        ModelError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        with offline_where_unreachable():
            sha = api.repo_info(repo_id).sha
            texts = {"README.md": with_section(_readme(api, repo_id, sha), section), **files}
            commit = api.create_commit(
                repo_id,
                [CommitOperationAdd(path, text.encode()) for path, text in texts.items()],
                commit_message="What fine-tuning has kept, by driftscope",
                parent_commit=sha,
            )
    except (OSError, ValueError) as error:  # the hub's own errors are either
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ModelError(
            f"{repo_id} was not changed: {said}. Check its name, `hf auth login` and the network"
        ) from None
    return str(commit.commit_url)


def _readme(api: HfApi, repo_id: str, revision: str | None) -> str:
    """A model's README on the hub; empty where it has none, and not where none could be had."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        file = api.hf_hub_download(repo_id, "README.md", revision=revision)
    except RemoteEntryNotFoundError:
        return ""
    return Path(file).read_text(encoding="utf-8")


_BEGIN, _END = "<!-- driftscope begin -->", "<!-- driftscope end -->"


def with_section(text: str, section: str) -> str:
    """The text with the section in place of an earlier one, or at its end."""
    ours = f"{_BEGIN}\n{section.strip()}\n{_END}"
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if begin and end:
        return f"{head}{ours}{tail}"
    return f"{text.rstrip()}\n\n{ours}\n".lstrip()


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
