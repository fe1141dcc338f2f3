"""Brings a catalog to the current schema with the Alembic scripts that ship with the package.

Imported only when a writer makes a collection or opens an older one.
"""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from mmsearch.catalog.tables import SCHEMA
from mmsearch.settings import shipped_folder


def upgrade(connection: Connection) -> None:
    """Run the missing migrations on this connection, inside its transaction."""
    config = Config()
    config.set_main_option("script_location", str(shipped_folder("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA)
