"""The run log: a row for every finished generation (``row``), in SQLite (``log``), shown and exported (``table``)."""
