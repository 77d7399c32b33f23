"""How large what others made may be: every limit, and the variable that raises it.

The limits are generous: no real record, spec or image that we know comes near one. What passes one
is refused by a sentence that names the variable, before it is unpacked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from driftscope.errors import ConfigError, shown


@dataclass(frozen=True)
class Limit:
    """The most of something that is taken from a file.

    Attributes:
        key: its name; in capitals the end of its variable's name.
        default: the limit where the variable is not set.
        what: what is counted.
    """

    key: str
    default: int
    what: str

    @property
    def variable(self) -> str:
        """The environment variable that raises it."""
        return f"DRIFTSCOPE_MAX_{self.key.upper()}"

    @property
    def value(self) -> int:
        """The limit in force.

        Raises:
            ConfigError: the variable holds no whole number above 0.
        """
        text = os.environ.get(self.variable, str(self.default))
        if text.strip().isdecimal() and len(text) < 20 and int(text):
            return int(text)
        raise ConfigError(
            f"{self.variable} is {shown(text)}; give a whole number above 0, such as {self.default}"
        )

    @property
    def sentence(self) -> str:
        """The limit in words, with the way to raise it."""
        return f"at most {self.value:,} are taken; {self.variable} raises this"


@dataclass(frozen=True)
class Megabytes(Limit):
    """A limit in megabytes."""

    @property
    def num_bytes(self) -> int:
        """The limit in force, in bytes."""
        return self.value * 1_000_000

    @property
    def sentence(self) -> str:
        """The limit in words, with the way to raise it."""
        return f"at most {self.value:,} MB are read; {self.variable} raises this"


JSON_MB: Final = Megabytes("json_mb", 64, "a record, a report or a configuration")
EVENTS_MB: Final = Megabytes("events_mb", 256, "the events of a training")
YAML_MB: Final = Megabytes("yaml_mb", 2, "a spec, or another file of YAML")
YAML_VALUES: Final = Limit("yaml_values", 200_000, "values in a file of YAML, aliases written out")
LIST_MB: Final = Megabytes("list_mb", 1_000, "a list of images or of class names")
PARSED_MB: Final = Megabytes("parsed_mb", 2_500, "the memory that a list or events take once read")
CLASS_NAMES: Final = Limit("class_names", 100_000, "class names in a file")
TEMPLATES: Final = Limit("templates", 1_000, "prompt templates in a file")
NAME_CHARACTERS: Final = Limit(
    "name_characters", 1_000, "characters of a class name or a prompt template in a file"
)
ARRAYS_MB: Final = Megabytes("arrays_mb", 500, "the attention maps of a run, unpacked")
IMAGE_MB: Final = Megabytes("image_mb", 100, "an encoded image")
IMAGE_ARRAYS_MB: Final = Megabytes("image_arrays_mb", 4_000, "a file of many images, unpacked")
IMAGE_PIXELS: Final = Limit("image_pixels", 80_000_000, "pixels of an image")
RUNS: Final = Limit("runs", 100_000, "runs that a study declares")
PAGE_RUNS: Final = Limit("page_runs", 500, "runs that a report draws and lists one by one")
"""No study is refused for it: of a larger one the report shows cells, and some runs of them."""
