"""Tables and references that pages of docs/ derive from the code: a function each, which returns Markdown.

`docs/generate.py` says which page has which. No prose of a page lives here.
"""
