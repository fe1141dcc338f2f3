"""The tables of a collection, as SQLAlchemy Core sees them. `migrations/` makes them; a test holds the two equal.

SCHEMA is the revision this program reads and writes: one number, compared at every opening.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = "0002"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# `path` is empty for the one root that holds what applications add by key instead of by folder.
root = Table(
    "root",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", LargeBinary, nullable=False, unique=True),
    Column("added_at", DateTime, nullable=False),
    Column("device", Text),
)

image = Table(
    "image",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("width", Integer),
    Column("height", Integer),
    Column("format", Text),
    Column("taken_at", DateTime, index=True),
    Column("camera", Text),
    Column("lens", Text),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("perceptual_hash", LargeBinary(16)),
    sqlite_autoincrement=True,
)

# A failed file keeps its image: the content may well be what it was. `tried_with` says by which version and limits it
# was found wanting; a run with others tries again, and every run does where the file could not even be read (null).
# `edited_from`: the image that the place held before, until the end of the run settles what becomes of that one.
file = Table(
    "file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("root", ForeignKey("root.id", ondelete="CASCADE"), nullable=False),
    Column("relative", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("sidecar", Text),
    Column("image", ForeignKey("image.id")),
    Column("edited_from", Integer),
    Column("status", Text, nullable=False, index=True),
    Column("error", Text),
    Column("tried_with", Text),
    UniqueConstraint("root", "relative"),
    Index(None, "image", "status"),  # covers "has this image a present file?", which every search asks
)

caption = Table(
    "caption",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("image", ForeignKey("image.id", ondelete="CASCADE"), nullable=False),
    Column("text", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("language", Text),
    UniqueConstraint("image", "source", "text"),
    sqlite_autoincrement=True,
)

tag = Table(
    "tag",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

image_tag = Table(
    "image_tag",
    metadata,
    Column("image", ForeignKey("image.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", ForeignKey("tag.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("source", Text, primary_key=True),
    Column("score", Float),
)

# `current`: the space that queries use when none is named; at most one row. `*_generation`: the folder below
# index/<space id>/ that holds its newest whole index of that kind.
space = Table(
    "space",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("encoder", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("dimension", Integer, nullable=False),
    Column("calibration", JSON),
    Column("state", Text, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("images_generation", Text),
    Column("captions_generation", Text),
    Column("joint_generation", Text),
    sqlite_autoincrement=True,
)

# `owner` is an image (kinds `images` and `joint`) or a caption (`captions`); whoever deletes an owner deletes its
# vectors in the same transaction. `joint`: an image together with its captions; triggers delete it when either changes.
vector = Table(
    "vector",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("space", ForeignKey("space.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("owner", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("crc", BigInteger, nullable=False),
    UniqueConstraint("space", "kind", "owner"),
    Index("ix_vector_space_kind", "space", "kind"),
    Index("ix_vector_kind_owner", "kind", "owner"),
    sqlite_autoincrement=True,
)

run = Table(
    "run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("command", Text, nullable=False),
    Column("started_at", DateTime, nullable=False),
    Column("ended_at", DateTime),
    Column("counts", JSON),
)

saved_query = Table(
    "saved_query",
    metadata,
    Column("name", Text, primary_key=True),
    Column("query", JSON, nullable=False),
)

# Text inside pictures; "" where there is none. `read_by`: which reader found it.
picture_text = Table(
    "picture_text",
    metadata,
    Column("image", ForeignKey("image.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("read_by", Text, nullable=False),
)

# Images whose row in image_fts has to be written anew before the transaction ends; triggers fill it.
image_fts_stale = Table("image_fts_stale", metadata, Column("image", Integer, primary_key=True, autoincrement=False))

# Full-text indexes of SQLite (FTS5), made by migrations. `image_fts` has one row an image, by its id: its captions,
# the names of its files and their folders, its tags, the text inside it. `caption_fts` has one a caption.
full_text = MetaData()
image_fts = Table(
    "image_fts",
    full_text,
    Column("rowid", Integer, primary_key=True),
    Column("captions", Text),
    Column("names", Text),
    Column("tags", Text),
    Column("inside", Text),
)
caption_fts = Table("caption_fts", full_text, Column("rowid", Integer, primary_key=True), Column("text", Text))
