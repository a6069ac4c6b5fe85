class CheckpointInfo:
    filename: str
    name_for_extra: str

def get_closet_checkpoint_match(search_string: str) -> CheckpointInfo | None: ...
