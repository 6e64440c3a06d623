"""Exact evaluation of wide maps in strips of rows: how maps are cut, what suits a device, statistics, lazy maps."""
