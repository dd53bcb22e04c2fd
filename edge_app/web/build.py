"""x"""
from pathlib import Path
PAGE = Path(__file__).with_name("page")
PYTHON = Path(__file__).with_name("python")
