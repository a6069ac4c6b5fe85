"""What a generation cost: time of each model call (``clock``), memory of process and card (``memory``).

``recorder`` receives each finished call of a sampling; ``records`` are the numbers, added up. Nothing here hooks a
model.
"""
