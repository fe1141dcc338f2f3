"""Results -> text, tables, JSON. Functions of plain records; nothing here prints."""
