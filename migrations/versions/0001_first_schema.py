"""The first schema: roots, files, images, captions with a full-text index, tags, spaces, vectors, runs, queries."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("format", sa.Text(), nullable=True),
        sa.Column("taken_at", sa.DateTime(), nullable=True),
        sa.Column("camera", sa.Text(), nullable=True),
        sa.Column("lens", sa.Text(), nullable=True),
        sa.Column("latitude", sa.Float(), nullable=True),
        sa.Column("longitude", sa.Float(), nullable=True),
        sa.Column("perceptual_hash", sa.LargeBinary(length=16), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("sha256", name=op.f("uq_image_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_image_taken_at"), "image", ["taken_at"], unique=False)
    op.create_table(
        "root",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_root")),
        sa.UniqueConstraint("path", name=op.f("uq_root_path")),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_table(
        "saved_query",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("query", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_saved_query")),
    )
    op.create_table(
        "space",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("calibration", sa.JSON(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("images_generation", sa.Text(), nullable=True),
        sa.Column("captions_generation", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_space")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_space_fingerprint")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tag",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tag")),
        sa.UniqueConstraint("name", name=op.f("uq_tag_name")),
    )
    op.create_table(
        "caption",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["image"], ["image.id"], name=op.f("fk_caption_image"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caption")),
        sa.UniqueConstraint("image", "source", "text", name=op.f("uq_caption_image_source_text")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "file",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("root", sa.Integer(), nullable=False),
        sa.Column("relative", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("sidecar", sa.Text(), nullable=True),
        sa.Column("image", sa.Integer(), nullable=True),
        sa.Column("edited_from", sa.Integer(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("tried_with", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["image"], ["image.id"], name=op.f("fk_file_image")),
        sa.ForeignKeyConstraint(["root"], ["root.id"], name=op.f("fk_file_root"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file")),
        sa.UniqueConstraint("root", "relative", name=op.f("uq_file_root_relative")),
    )
    op.create_index(op.f("ix_file_image_status"), "file", ["image", "status"], unique=False)
    op.create_index(op.f("ix_file_status"), "file", ["status"], unique=False)
    op.create_table(
        "image_tag",
        sa.Column("image", sa.Integer(), nullable=False),
        sa.Column("tag", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["image"], ["image.id"], name=op.f("fk_image_tag_image"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tag"], ["tag.id"], name=op.f("fk_image_tag_tag"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image", "tag", "source", name=op.f("pk_image_tag")),
    )
    op.create_index(op.f("ix_image_tag_tag"), "image_tag", ["tag"], unique=False)
    op.create_table(
        "vector",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("space", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space"], ["space.id"], name=op.f("fk_vector_space"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector")),
        sa.UniqueConstraint("space", "kind", "owner", name=op.f("uq_vector_space_kind_owner")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_vector_kind_owner", "vector", ["kind", "owner"], unique=False)
    op.create_index("ix_vector_space_kind", "vector", ["space", "kind"], unique=False)

    op.execute("CREATE VIRTUAL TABLE caption_fts USING fts5(text, content='caption', content_rowid='id')")
    add = "INSERT INTO caption_fts(rowid, text) VALUES (new.id, new.text);"
    drop = "INSERT INTO caption_fts(caption_fts, rowid, text) VALUES ('delete', old.id, old.text);"
    op.execute(f"CREATE TRIGGER caption_added AFTER INSERT ON caption BEGIN {add} END")
    op.execute(f"CREATE TRIGGER caption_removed AFTER DELETE ON caption BEGIN {drop} END")
    op.execute(f"CREATE TRIGGER caption_changed AFTER UPDATE OF text ON caption BEGIN {drop} {add} END")
