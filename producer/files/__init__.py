"""Files dropped in a folder as a source: append-only tables, each row with its file's name and its line."""
