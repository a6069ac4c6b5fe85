"""What a generation cost: time of each model call (``clock``), memory of process and card (``memory``).

``recorder`` collects what it is told while one sampling runs; ``records`` are the numbers, added up. Nothing here hooks
a model.
"""
