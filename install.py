"""Run by Forge when the extension is installed and at every start: adds what is missing, touches nothing else.

Forge pins its environment. Everything the extension needs is in it but ``nvidia-ml-py``, a pure Python file with no
dependencies. Without it the report lacks the driver's view of the card, nothing more, so a failure is only told.
"""

import launch

if not launch.is_installed("pynvml"):
    try:
        launch.run_pip("install nvidia-ml-py --no-deps", "nvidia-ml-py for Flux Kontext's memory report")
    except Exception as error:
        print(f"Flux Kontext works without nvidia-ml-py, but shows no memory of the driver's: {error}")
