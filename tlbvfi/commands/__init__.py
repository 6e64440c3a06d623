"""The command line: ``python -m tlbvfi COMMAND``; ``--help`` on each says what it does.

One file per command, with its arguments (`add`) and its work (`run`); what they share has files of its own.
"""
