"""Draws a head: face, hair, eyes, glasses, beard and marks."""

from __future__ import annotations

import numpy as np

from consisid_nano.world.canvas import Canvas, Points, ellipse
from consisid_nano.world.person import FRAMES, Colour, Person
from consisid_nano.world.pose import Expression, Pose

SKIN, BROW, EYE, GLASS, EAR, NOSE, MOUTH, LIP, NECK, CLOTH, HAIR = 1, 2, 4, 6, 7, 10, 11, 12, 14, 16, 17
"""BiSeNet's classes; where it has a left and a right one, the left one stands for both."""
UPPER_LIP, LOWER_LIP = LIP, LIP + 1
EYE_LINE = -0.06
MOUTH_LINE = 0.64
_WHITE: Colour = (250, 250, 250)


def darker(colour: Colour, by: float) -> Colour:
    red, green, blue = ((1 - by) * level for level in colour)
    return red, green, blue


def keypoints(who: Person, pose: Pose, expression: Expression) -> Points:
    """Return eye centres, tip of the nose and mouth corners: [5, 2] in pixels, the viewer's left first."""
    half, corner = who.eye_distance / 2, _mouth_corner(who, expression)
    places = [
        (-half, EYE_LINE), (half, EYE_LINE), (0.0, EYE_LINE + who.nose_length), (-corner[0], corner[1]), corner,
    ]  # fmt: skip
    return pose.on_face(np.array(places))


def outline(who: Person) -> Points:
    """Return the face's outline [40, 2] in face units, chin at (0, 1)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    across, down = np.cos(angle), np.sin(angle)
    # Below the eyes a superellipse: pointed for a jaw of 0, square for 1.
    power = np.where(down > 0, 1.15 - 0.45 * who.jaw, 0.9)
    return np.stack([who.face_width * np.sign(across) * np.abs(across) ** power, down], axis=1)


def draw_head(canvas: Canvas, who: Person, pose: Pose, expression: Expression) -> None:
    """Draw the whole head, from back to front."""
    _hair_behind(canvas, who, pose)
    for side in (-1, 1):
        ear = ellipse(side * (who.face_width + 0.02), 0.08, 0.13, 0.2)
        canvas.polygon(pose.on_outline(ear), darker(who.skin, 0.12), EAR)
    canvas.polygon(pose.on_outline(outline(who)), who.skin, SKIN)
    _marks(canvas, who, pose)
    _beard(canvas, who, pose, expression)
    _nose(canvas, who, pose)
    _mouth(canvas, who, pose, expression)
    for side in (-1, 1):
        _eye(canvas, who, pose, expression, side)
    _hair_in_front(canvas, who, pose)
    for side in (-1, 1):
        _brow(canvas, who, pose, expression, side)
    _glasses(canvas, who, pose)


def _hair_behind(canvas: Canvas, who: Person, pose: Pose) -> None:
    width, length, shade = who.face_width, who.hair_length, darker(who.hair, 0.15)
    if who.hair_style == "curls":
        for angle in np.linspace(0.95 * np.pi, 2.05 * np.pi, 9):
            x, y = (width + 0.12) * np.cos(angle), -0.25 + 0.95 * np.sin(angle)
            canvas.polygon(pose.on_outline(ellipse(x, y, 0.3, 0.3, 14)), shade, HAIR)
    elif who.hair_style in ("bob", "long"):
        bottom = 0.55 + 0.3 * length if who.hair_style == "bob" else 1.15 + 0.35 * length
        half = width + 0.2
        top = ellipse(0, -0.3, half, 0.95)
        locks = np.array([(half, -0.3), (half + 0.06, bottom), (-half - 0.06, bottom), (-half, -0.3)])
        canvas.polygon(pose.on_outline(top), shade, HAIR)
        canvas.polygon(pose.on_outline(locks), shade, HAIR)
    elif who.hair_style == "bun":
        canvas.polygon(pose.on_outline(ellipse(0, -1.22, 0.3, 0.26)), shade, HAIR)
    elif who.hair_style == "mohawk":
        canvas.polygon(
            pose.on_outline(np.array([(-0.2, -0.8), (-0.14, -1.42), (0.14, -1.42), (0.2, -0.8)])), who.hair, HAIR
        )


def _hair_in_front(canvas: Canvas, who: Person, pose: Pose) -> None:
    width, style = who.face_width, who.hair_style
    if style == "bald":
        return
    if style == "mohawk":
        canvas.polygon(
            pose.on_outline(np.array([(-0.2, -0.55), (-0.2, -1.1), (0.2, -1.1), (0.2, -0.55)])), who.hair, HAIR
        )
        return
    crown = ellipse(0, -0.3, width + 0.06, 0.8, 48)
    above = crown[crown[:, 1] <= -0.3]
    above = above[np.argsort(above[:, 0])]
    hairline = {
        "crew cut": [(0.62, -0.55), (0.0, -0.68), (-0.62, -0.55)],
        "side parting": [(0.72, -0.42), (0.1, -0.5), (-0.3, -0.8), (-0.72, -0.5)],
        "curls": [(0.68, -0.42), (0.34, -0.62), (0.0, -0.5), (-0.34, -0.62), (-0.68, -0.42)],
        "bob": [(0.7, -0.36), (0.0, -0.4), (-0.7, -0.36)],
        "long": [(0.78, -0.3), (0.3, -0.62), (0.0, -0.86), (-0.3, -0.62), (-0.78, -0.3)],
        "bun": [(0.72, -0.44), (0.0, -0.78), (-0.72, -0.44)],
    }[style]
    line = np.array(hairline) * (width / 0.8, 1.0)
    canvas.polygon(pose.on_outline(np.concatenate([above, line])), who.hair, HAIR)


def _eye(canvas: Canvas, who: Person, pose: Pose, expression: Expression, side: int) -> None:
    x, size = side * who.eye_distance / 2, who.eye_size
    down = size * 0.72 * (1 + expression.wide)
    white = ellipse(x, EYE_LINE, size, down)
    white[:, 1] -= side * who.eye_slant * (white[:, 0] - x) / size
    rim = ellipse(x, EYE_LINE, size + 0.03, down + 0.03)
    rim[:, 1] -= side * who.eye_slant * (rim[:, 0] - x) / size
    canvas.polygon(pose.on_face(rim), darker(who.skin, 0.55), EYE)
    canvas.polygon(pose.on_face(white), _WHITE, EYE)
    iris = min(0.13, down)
    canvas.polygon(pose.on_face(ellipse(x, EYE_LINE, iris, iris)), who.eyes, EYE)
    canvas.polygon(pose.on_face(ellipse(x, EYE_LINE, 0.05, 0.05, 12)), (10, 10, 14), EYE)


def _brow(canvas: Canvas, who: Person, pose: Pose, expression: Expression, side: int) -> None:
    x, y = side * who.eye_distance / 2, EYE_LINE - who.brow_height - 0.09 * expression.raised
    along = np.linspace(-1, 1, 7)
    inward = -side * along  # 1 at the inner end
    points = np.stack([x + 0.21 * along, y - 0.03 * (1 - along**2) + 0.09 * expression.frown * inward], axis=1)
    shade = darker(who.hair, 0.3) if who.hair_style != "bald" else darker(who.skin, 0.6)
    canvas.line(pose.on_face(points), who.brow_weight * pose.unit, shade, BROW)


def _nose(canvas: Canvas, who: Person, pose: Pose) -> None:
    bottom = EYE_LINE + who.nose_length
    shade = darker(who.skin, 0.2)
    bridge = np.array([(0.0, EYE_LINE + 0.1), (who.nose_width, bottom), (-who.nose_width, bottom)])
    canvas.polygon(pose.on_face(bridge), darker(who.skin, 0.09), NOSE)
    canvas.polygon(pose.on_face(ellipse(0, bottom, who.nose_width, 0.07)), shade, NOSE)


def _mouth_corner(who: Person, expression: Expression) -> tuple[float, float]:
    return who.mouth_width * (
        1 + 0.15 * expression.smile - 0.25 * expression.open
    ), MOUTH_LINE - 0.09 * expression.smile


def _mouth(canvas: Canvas, who: Person, pose: Pose, expression: Expression) -> None:
    half, corner = _mouth_corner(who, expression)
    along = np.linspace(-1, 1, 13)
    bend = 1 - along**2
    middle = corner + 0.19 * expression.smile * bend
    gap = 0.17 * expression.open * np.sqrt(np.clip(1 - along**2, 0, None))
    upper, lower = middle - gap, middle + gap + 0.02 * bend
    x = half * along

    def band(top: Points, bottom: Points) -> Points:
        return np.concatenate([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])

    weight = who.lip_weight * (0.35 + 0.65 * bend)
    canvas.polygon(pose.on_face(band(upper - weight, lower + weight * 1.2)), who.lips, LOWER_LIP)
    canvas.polygon(pose.on_face(band(upper - weight, middle)), who.lips, UPPER_LIP)
    canvas.polygon(pose.on_face(band(upper - 0.012, lower + 0.012)), (70, 20, 28), MOUTH)


def _marks(canvas: Canvas, who: Person, pose: Pose) -> None:
    for x, y, radius in who.freckles:
        canvas.polygon(pose.on_face(ellipse(x, y, radius, radius, 10)), _freckle(who.skin), SKIN)
    if who.scar != "none":
        ends = {"left cheek": ((-0.56, 0.16), (-0.3, 0.5)), "right cheek": ((0.56, 0.16), (0.3, 0.5)),
                "forehead": ((0.12, -0.5), (0.42, -0.36))}[who.scar]  # fmt: skip
        line = np.linspace(*ends, 5)
        canvas.line(pose.on_face(line), 0.075 * pose.unit, (168, 40, 52), SKIN)
    if who.mole != "none":
        place = {"left cheek": (-0.46, 0.42), "right cheek": (0.46, 0.42), "chin": (0.2, 0.86)}[who.mole]
        canvas.polygon(pose.on_face(ellipse(*place, 0.075, 0.075, 14)), (40, 22, 18), SKIN)


def _freckle(skin: Colour) -> Colour:
    # Darker than the skin, moderately for light skins and strongly for the darkest.
    return darker(skin, 0.42) if sum(skin) > 330 else (skin[0] * 0.4, skin[1] * 0.4, skin[2] * 0.4)


def _beard(canvas: Canvas, who: Person, pose: Pose, expression: Expression) -> None:
    drop = 0.1 * expression.open
    if who.beard == "full beard":
        edge = outline(who)
        edge = edge[edge[:, 1] > 0.3]
        edge = edge[np.argsort(edge[:, 0])]
        top = np.array(
            [(0.9 * who.face_width, 0.3), (0.42, 0.48), (0.0, 0.44), (-0.42, 0.48), (-0.9 * who.face_width, 0.3)]
        )
        canvas.polygon(pose.on_outline(np.concatenate([edge * (1.03, 1.05) + (0, 0.4 * drop), top])), who.hair, SKIN)
    if who.beard == "goatee":
        canvas.polygon(pose.on_face(ellipse(0, 0.88 + drop, 0.2, 0.2)), who.hair, SKIN)
    if who.beard in ("moustache", "goatee"):
        along = np.linspace(-1, 1, 9)
        curve = np.stack([0.3 * along, MOUTH_LINE - 0.15 + 0.07 * along**2 - 0.5 * drop], axis=1)
        canvas.line(pose.on_face(curve), 0.11 * pose.unit, who.hair, SKIN)


def _glasses(canvas: Canvas, who: Person, pose: Pose) -> None:
    if who.glasses == "none":
        return
    frame, half = FRAMES[who.frame_colour], who.eye_distance / 2
    thick = 0.065 * pose.unit
    for side in (-1, 1):
        if who.glasses == "round":
            ring = ellipse(side * half, EYE_LINE, 0.29, 0.29, 28)
        else:
            x, across, down = side * half, 0.3, 0.22
            corners = np.array([(x - across, EYE_LINE - down), (x + across, EYE_LINE - down),
                                (x + across, EYE_LINE + down), (x - across, EYE_LINE + down)])  # fmt: skip
            ring = np.concatenate([np.linspace(corners[i], corners[(i + 1) % 4], 7)[:-1] for i in range(4)])
        ring = pose.on_face(ring)
        canvas.ring(ring, thick, frame, GLASS)
        arm = np.array([(side * (half + 0.29), EYE_LINE - 0.03), (side * who.face_width, EYE_LINE - 0.05)])
        canvas.line(pose.on_face(arm), thick, frame, GLASS)
    inner = half - 0.29
    canvas.line(pose.on_face(np.array([(-inner, EYE_LINE - 0.04), (inner, EYE_LINE - 0.04)])), thick, frame, GLASS)
