"""Campaigns: many trials of what must never go wrong, counted; `python -m tests.campaign`."""
