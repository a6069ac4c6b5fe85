"""The run log: one row for every generation (``row``), kept in SQLite (``log``), shown and exported (``table``)."""
