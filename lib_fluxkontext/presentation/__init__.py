"""Reports and runs for people: text (``text``), HTML (``html``, ``page``), tables (``run_table``)."""
