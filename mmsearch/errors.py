"""What can go wrong, as one tree. Every error the library raises on purpose is below MMSearchError.

    MMSearchError                  one line: what, why, what to do
    ├── UsageError                 the caller asked for something that cannot be (exit code 2)
    ├── CollectionError            a collection cannot be used (exit code 4)
    │   ├── CollectionNotFoundError    there is none at that place
    │   ├── SchemaError                written by an older or a newer program
    │   ├── LockError                  the file system cannot lock, or another program holds the lock for too long
    │   └── DamagedError               its contents contradict their checksums
    ├── ModelError                 an encoder cannot be used (exit code 4)
    │   ├── UnknownModelError          no encoder of that name
    │   ├── WeightsNotFoundError       known, but its weights are not on this machine
    │   ├── WeightsMismatchError       the weights do not fit the architecture, or are not those of the space
    │   └── SpaceNotFoundError         the collection holds no vectors of this encoder
    ├── MissingExtraError          an optional dependency is not installed (exit code 4)
    └── PictureError               one picture cannot be read; recorded beside its file, never ends a run

The message is complete: it names the input, the reason and the remedy, and is shown to people as it is.
"""


class MMSearchError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(MMSearchError):
    """An argument is wrong or arguments do not fit together."""


class CollectionError(MMSearchError):
    """A collection cannot be opened, read or written."""


class CollectionNotFoundError(CollectionError):
    """There is no collection at this place."""


class SchemaError(CollectionError):
    """The catalog was written by an older program (migrate it) or by a newer one (update mmsearch)."""


class LockError(CollectionError):
    """The file system of the collection cannot lock files; or another program holds its lock: try again later."""


class DamagedError(CollectionError):
    """Stored bytes contradict their checksums."""


class ModelError(MMSearchError):
    """An encoder cannot be used."""


class UnknownModelError(ModelError):
    """No encoder answers to this name."""


class WeightsNotFoundError(ModelError):
    """The encoder is known, its weights are not on this machine."""


class WeightsMismatchError(ModelError):
    """Weights do not fit their architecture, or are not those that made the stored vectors."""


class SpaceNotFoundError(ModelError):
    """The collection holds no vectors of this encoder."""


class MissingExtraError(MMSearchError):
    """An optional dependency is needed; the message names the extra to install."""


class PictureError(MMSearchError):
    """One picture cannot be read: truncated, empty, too large, not a picture, unreadable or gone."""
