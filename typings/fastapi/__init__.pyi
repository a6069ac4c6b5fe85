class HTTPException(Exception):
    status_code: int
    detail: object
    def __init__(self, status_code: int, detail: object = None) -> None: ...
