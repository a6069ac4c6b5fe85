"""The run log: one record per finished generation (``record``), stored in SQLite (``store``)."""
