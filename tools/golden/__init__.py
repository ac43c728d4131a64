"""Reference numbers of the released AIA model, checked by tools/check_golden.py."""
