"""Alembic's door: runs on the connection that `mmsearch.catalog.migrate` hands over."""

from alembic import context

from mmsearch.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
