"""A generation in Forge, from request to report: ``inputs`` read it, ``generation`` opens a session for each sampling,
``sampler_hook`` tells when that ends, ``refusal`` rejects a generation, ``live_reports`` are what the page fetches.
"""
