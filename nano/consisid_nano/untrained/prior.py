"""What a frontal face looks like, as numbers: the prior that the nano checkpoint's detectors are built from.

Nothing here was trained or fitted: the numbers were set by hand, looking at drawn portraits and at the four sample
photographs that the tests use, which are therefore no independent measure of it. Two maps are taken from a picture:

    skin      1 where red, green and blue stand in the proportions of skin in white light, fair to dark, falling to 0
              outside them; hair, wood and sand can have them too, and what is nearly black passes
    darkness  5 − log2((luminance + 16) / 16) − 0.6 · skin, so that differences are ratios of brightness, and what is
              neither skin nor bright (the white of an eye, teeth) counts as dark

Both are non-negative, and the 0 that a convolution pads with is bright and not skin: a face cannot lean on the frame.
Places are in *eye distances* from the middle of the eye line, x to the right and y downwards in the picture.
"""

from __future__ import annotations

# Rows of (red, green, blue, 1): positive outside skin. In 0 to 255; 15 levels outside count as no skin.
SKIN_BOUNDS = (
    (0.52, -1.0, 0.0, 0.0),
    (-0.93, 1.0, 0.0, 0.0),
    (0.36, 0.0, -1.0, 0.0),
    (-0.87, 0.0, 1.0, 10.0),
)
SKIN_SOFTNESS = 15.0
LUMINANCE = (0.299, 0.587, 0.114)
SKIN_IN_DARKNESS = 0.6
DARKEST = 5.0

EYES = ((-0.5, 0.0), (0.5, 0.0))
KEYPOINTS = (*EYES, (0.0, 0.57), (-0.42, 1.02), (0.42, 1.02))
"""Left eye, right eye, nose, mouth corners, as ArcFace orders them."""
BOX = (-1.1, -0.75, 1.1, 1.6)
"""Left, top, right, bottom."""
