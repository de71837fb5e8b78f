"""What decoding needs of an image file, for each format: its pixels, the orientation and the colour profile.

Each module walks its format's structure once, in linear time, and bounds what its decoder will have to do. Nothing here
decodes pixels.
"""
