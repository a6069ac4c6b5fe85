"""What a generation cost: seconds of each model call (``clock``), memory of process and card (``memory``)."""
