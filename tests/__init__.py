"""A package, so that `tests.helpers` is ours also where another checkout's `tests` is on the path.

Python takes a regular package anywhere on its path, such as that of detectron2's checkout, before a
folder without this file.
"""
