"""The prior of a frontal face from which the untrained checkpoint's detector, aligner and parser are built.

The numbers were set by hand, with drawn portraits and the four sample photographs of the tests in view; those
photographs are therefore no independent test. Two maps are computed from a picture:

    skin      1 where red, green and blue have the proportions of fair to dark skin in white light, falling to 0
              outside; hair, wood and sand can have these proportions, and almost black pixels count as skin
    darkness  5 − log2((luminance + 16) / 16) − 0.6 · skin, so that differences are ratios of brightness, and pixels
              that are neither skin nor bright (the white of an eye, teeth) count as dark

Both are non-negative. The 0 that a convolution pads with means bright and not skin, so a face cannot extend beyond the
frame.
Places are in *eye distances* from the middle of the eye line, x to the right and y downwards in the picture.
"""

from __future__ import annotations

# Coefficients of (red, green, blue, 1), levels 0 to 255: positive outside skin; 15 levels outside, skin is 0.
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
