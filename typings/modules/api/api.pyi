from typing import Any

requests: Any

def verify_url(url: str) -> bool: ...
