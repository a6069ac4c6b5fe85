"""Reports and runs for people: text (``text``), HTML (``html``, ``chart``, ``page``), tables (``run_table``)."""
