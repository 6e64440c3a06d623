"""The segments of a long run, made by many workers under Ray (https://ray.io), which is imported when it is needed.

:mod:`.connection` finds or starts a Ray, :mod:`.worker` is what runs there, :mod:`.driver` deals out the segments, and
:mod:`.job` is what the two say to one another.
"""
