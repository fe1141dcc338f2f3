"""Full text of images (captions, names, tags, text inside pictures), text inside pictures, joint vectors."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What changes an image's text: table, operation, the images concerned.
CHANGES = (
    ("caption", "INSERT", ("new.image",)),
    ("caption", "DELETE", ("old.image",)),
    ("caption", "UPDATE OF image, text", ("old.image", "new.image")),
    ("file", "INSERT", ("new.image",)),
    ("file", "DELETE", ("old.image",)),
    ("file", "UPDATE OF image, relative, status", ("old.image", "new.image")),
    ("image_tag", "INSERT", ("new.image",)),
    ("image_tag", "DELETE", ("old.image",)),
    ("image_tag", "UPDATE OF image, tag", ("old.image", "new.image")),
    ("picture_text", "INSERT", ("new.image",)),
    ("picture_text", "DELETE", ("old.image",)),
    ("picture_text", "UPDATE OF image, text", ("old.image", "new.image")),
    ("image", "DELETE", ("old.id",)),
)


def upgrade() -> None:
    op.add_column("space", sa.Column("joint_generation", sa.Text(), nullable=True))
    op.create_table(
        "picture_text",
        sa.Column("image", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("read_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["image.id"], name=op.f("fk_picture_text_image"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image", name=op.f("pk_picture_text")),
    )

    words = "tokenize='porter unicode61 remove_diacritics 2'"
    op.execute("DROP TABLE caption_fts")
    op.execute(f"CREATE VIRTUAL TABLE caption_fts USING fts5(text, content='caption', content_rowid='id', {words})")
    op.execute("INSERT INTO caption_fts(caption_fts) VALUES ('rebuild')")

    # One row an image, by its id. Triggers note which images changed; the end of each transaction writes those anew.
    op.execute(f"CREATE VIRTUAL TABLE image_fts USING fts5(captions, names, tags, inside, {words})")
    op.create_table(
        "image_fts_stale",
        sa.Column("image", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("image", name=op.f("pk_image_fts_stale")),
    )
    for table, operation, images in CHANGES:
        name = f"{table}_{operation.split()[0].lower()}_text"
        notes = "".join(
            f"INSERT INTO image_fts_stale SELECT {one} WHERE {one} IS NOT NULL "
            f"AND NOT EXISTS (SELECT 1 FROM image_fts_stale WHERE image = {one}); "
            for one in images
        )
        op.execute(f"CREATE TRIGGER {name} AFTER {operation} ON {table} BEGIN {notes}END")
    op.execute(
        "CREATE TRIGGER root_update_text AFTER UPDATE OF path ON root BEGIN "
        "INSERT INTO image_fts_stale SELECT DISTINCT image FROM file WHERE root = new.id AND image IS NOT NULL "
        "AND image NOT IN (SELECT image FROM image_fts_stale); END"
    )
    op.execute("INSERT INTO image_fts_stale SELECT id FROM image")

    # A joint vector is made of an image's and its captions' vectors; it goes when one of them changes.
    owner = "(SELECT image FROM caption WHERE id = {row}.owner)"
    for operation, row in (("INSERT", "new"), ("DELETE", "old")):
        for kind, image in (("images", f"{row}.owner"), ("captions", owner.format(row=row))):
            op.execute(
                f"CREATE TRIGGER vector_{operation.lower()}_{kind}_joint AFTER {operation} ON vector "
                f"WHEN {row}.kind = '{kind}' BEGIN "
                f"DELETE FROM vector WHERE space = {row}.space AND kind = 'joint' AND owner = {image}; END"
            )
