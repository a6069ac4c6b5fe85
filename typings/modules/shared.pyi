from modules.options import OptionInfo as OptionInfo
from modules.options import Options

class MemUsageMonitor:
    disabled: bool

class State:
    interrupted: bool
    skipped: bool

mem_mon: MemUsageMonitor
opts: Options
state: State
