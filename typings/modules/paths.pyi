data_path: str
script_path: str
