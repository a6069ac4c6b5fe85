"""Helpers of the tests: a Forge server, its page in a browser, photographs, small models, requests to the extension."""
