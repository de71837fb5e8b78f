"""`make gpu`: measures ConsisID-preview's size on a GPU with weights made there, part by part, within a time limit.

The suites `stages`, `whole` and `peers`, and what runs them.
"""
