from gradio.blocks import Blocks

class Context:
    root_block: Blocks | None
