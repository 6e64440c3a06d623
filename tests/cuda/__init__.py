"""The check on a graphics card: `python tasks.py cuda`, or part by part as tests.

:mod:`.check` runs the parts and writes what they found, :mod:`.setting` says on what they run and :mod:`.report` what
becomes of it; each other module is one part, in a function that takes a :class:`.setting.Setting` and a
:class:`.report.Sheet`.
"""
