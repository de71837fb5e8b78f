// What was read of a face, in words. The figures are the runtime's, the borders between words are this page's: none
// of them is a reason to refuse a photograph.

const PIXELS = { tiny: 64, small: 112 };
// A portrait that was scaled down until its face had 32 pixels, and up again, has 30 to 60; one of 64 pixels 170 and more.
const SHARPNESS = { blurred: 40, soft: 100 };
const YAW = { away: 40, turned: 22 };

const join = (parts) => (parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`);

/**
 * { verdict: "good" | "fair" | "poor" | "", headline, remarks: [sentence] } of a face's figures.
 *
 * A figure that is missing is not remarked on.
 */
export function judge(face) {
  const poor = [];
  const fair = [];
  const pixels = Math.round(face.face_pixels);
  if (face.face_pixels < PIXELS.tiny) {
    poor.push(`The face is too small: ${pixels} pixels. Take a closer picture, or one with more pixels.`);
  } else if (face.face_pixels < PIXELS.small) {
    fair.push(`The face is rather small: ${pixels} pixels. A closer picture keeps more of the person.`);
  }
  if (face.face_sharpness < SHARPNESS.blurred) poor.push("The face is blurred. A sharp picture works better.");
  else if (face.face_sharpness < SHARPNESS.soft) fair.push("The face is a little soft.");
  const yaw = Math.abs(face.face_yaw);
  if (yaw > YAW.away) poor.push("The face is turned away. One that looks toward the camera works better.");
  else if (yaw > YAW.turned) fair.push("The face is turned to the side.");
  if (face.face_hidden?.length) {
    const verb = face.face_hidden.length === 1 ? "is" : "are";
    fair.push(`The ${join(face.face_hidden)} ${verb} hidden.`);
  }
  if (face.face_found_by === "aligner") fair.push("The face is hard to find: the person may be less alike.");
  const remarks = [...poor, ...fair];
  if (poor.length) return { verdict: "poor", headline: "This portrait may not work well", remarks };
  if (fair.length) return { verdict: "fair", headline: "Usable, with reservations", remarks };
  if (face.face_pixels === undefined) return { verdict: "", headline: "A face was found", remarks: [] };
  return { verdict: "good", headline: "A good portrait", remarks: ["One clear face, large and sharp enough."] };
}

/** Of a face that is not the one that was read. */
export const UNREAD = { verdict: "fair", headline: "Another face will be taken", remarks: ["How good it is was not looked at."] };

/** Faces by size: 0 is the largest. */
export const nth = (place) => ["the largest", "the second largest", "the third largest"][place] ?? `number ${place + 1} by size`;

/** Which of several faces is taken; empty where there is one. */
export function several(face, index) {
  return face.faces > 1 ? `${face.faces} faces were found; ${nth(index ?? face.face_index ?? 0)} is taken.` : "";
}
