"""The exit codes, a promise to scripts."""

from enum import IntEnum


class Exit(IntEnum):
    """A command returns one of these, or nothing for DONE."""

    DONE = 0
    NOTHING_FOUND = 1
    USAGE = 2
    SOME_FAILED = 3  # some files could not be indexed
    UNUSABLE = 4  # a collection or model error
    NOT_PROMOTED = 5  # the model that was trained is no better
    OUR_BUG = 70
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM
