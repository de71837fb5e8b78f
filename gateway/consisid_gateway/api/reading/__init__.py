"""Bodies within bounds, and what they ask for.

body        the bytes, counted while they arrive; JSON and forms as the same fields
multipart   a form in pieces, with bounds on its parts
fields      one field: text or JSON → a value of the right type
asked       all fields of a request for a video, checked as the runtime checks them
portrait    the image: decoded from a data URL, checked before its pixels are
"""
